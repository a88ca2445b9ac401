"""A neural policy that acts within microseconds: the same numbers as `NeuralPolicy`, compiled for its widths."""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir

from dynamics.kernels.compiled import best_tile, load, processor_features
from dynamics.kernels.network import padded, write_network
from dynamics.network import layer_count
from policies.neural_policy import NeuralPolicy
from robots.command import Command
from robots.errors import ConfigurationError
from robots.observation import Observation


class FastNetwork:
    """What `NeuralPolicy` does in one state, in float32 as there, from the weights that it has now. Not for several threads at once.

    The standardisation is folded into the first layer, and a hidden layer's weights are halved: swish(a) = z + z tanh(z) with z = a / 2.
    ConfigurationError where the state holds a rotation: its features are a matrix.
    """

    provenance = NeuralPolicy.provenance

    def __init__(self, policy: NeuralPolicy, *, compiled: bool = True) -> None:
        """Compile for this processor (0.1 s); with `compiled` False, or where it lacks the instructions, NumPy does the work."""
        self.state_space, self.command = policy.state_space, policy.command
        if policy.state_space.has_quaternions:
            raise ConfigurationError("FastNetwork: the state holds a quaternion, which it does not read; use NeuralPolicy itself")
        weights = _folded(policy)
        self._angles = self.state_space.angle_inputs.numpy()
        self._inputs = np.zeros(len(weights[0]) - 1, np.float32)
        self._x, turned = np.split(self._inputs, [self.state_space.nx])
        self._sines, self._cosines = np.split(turned, 2)
        box = _box(self.command.minimum, self.command.maximum)
        tile = best_tile(processor_features()) if compiled else None
        self.compiled = tile is not None
        """Whether compiled instructions do the work."""
        network = _NumpyNetwork(self._inputs, weights, box) if tile is None else _CompiledNetwork(self._inputs, weights, box, tile.lanes)
        self._run, self._outputs = network.run, network.outputs

    def action(self, x: np.ndarray) -> np.ndarray:
        """Return the command (nu,) float64 in state x (nx,): fresh, inside the box, NaN where x is NaN."""
        self._x[:] = x
        if len(self._angles):
            angles = self._x[self._angles]
            np.sin(angles, self._sines)
            np.cos(angles, self._cosines)
        self._run()
        return self._outputs.astype(np.float64)

    def reset(self, seed: int) -> None:
        """Nothing to do: the policy has neither memory nor randomness."""

    def act(self, observation: Observation) -> Command:
        return Command(self.command.mode, self.action(self.state_space.state(observation)))


class _CompiledNetwork:
    """The layers as one function, on memory of their own."""

    def __init__(self, inputs: np.ndarray, weights: list[np.ndarray], box: np.ndarray, lanes: int) -> None:
        widths = (len(inputs), *(weight.shape[1] for weight in weights))
        module = ir.Module("reflexarc_network")
        write_network(module, "network", lanes, widths)
        self._function = load(module, processor_features(), {"network": 4})["network"]
        columns = [padded(width, lanes) for width in widths]
        blocks = [np.pad(block, ((0, 0), (0, -block.shape[1] % lanes))) for block in (*weights, box)]
        outputs = np.zeros(columns[-1], np.float32)
        self.outputs = outputs[: widths[-1]]
        self._memory = (inputs, np.concatenate([block.ravel() for block in blocks]), np.zeros(2 * max(columns), np.float32), outputs)
        self._addresses = tuple(ctypes.c_int64(array.ctypes.data) for array in self._memory)

    def run(self) -> None:
        """Make `outputs` of `inputs`."""
        self._function(*self._addresses)


class _NumpyNetwork:
    """The layers as four calls of NumPy each; every bias is the weight of an input that is always 1."""

    def __init__(self, inputs: np.ndarray, weights: list[np.ndarray], box: np.ndarray) -> None:
        self._middle, self._half_range = box
        rows = [np.ones(len(weight), np.float32) for weight in weights]
        self._inputs, self._first = inputs, rows[0][:-1]
        self._layers = [(rows[i], weights[i], np.empty(len(rows[i + 1]) - 1, np.float32), rows[i + 1][:-1]) for i in range(len(rows) - 1)]
        self._last_row, self._last_weight = rows[-1], weights[-1]
        self.outputs = np.zeros(weights[-1].shape[1], np.float32)

    def run(self) -> None:
        """Make `outputs` of `inputs`."""
        self._first[:] = self._inputs
        for row, weight, halves, hidden in self._layers:
            row.dot(weight, halves)
            np.tanh(halves, hidden)
            np.multiply(hidden, halves, hidden)
            np.add(hidden, halves, hidden)
        self._last_row.dot(self._last_weight, self.outputs)
        np.tanh(self.outputs, self.outputs)
        np.multiply(self.outputs, self._half_range, self.outputs)
        np.add(self.outputs, self._middle, self.outputs)


def _folded(policy: NeuralPolicy) -> list[np.ndarray]:
    """Return the weights (inputs + 1, outputs) float32 of every layer, its bias last; the first one's inputs are x, sines, cosines."""
    tensors = {name: value.double().numpy() for name, value in policy.tensors().items()}
    last = layer_count(policy.parameters) - 1
    weights = [tensors[f"weight{layer}"] for layer in range(last + 1)]
    biases = [tensors[f"bias{layer}"] for layer in range(last + 1)]
    scaled = weights[0] / tensors["input_std"][:, None]
    biases[0] = biases[0] - tensors["input_mean"] @ scaled
    nx, linear = policy.state_space.nx, policy.state_space.linear_inputs.numpy()
    own = scaled[:nx].copy()
    np.add.at(own, linear, scaled[nx : nx + len(linear)])  # a linear feature is an entry of the state once more
    weights[0] = np.vstack([own, scaled[nx + len(linear) :]])
    shares = [0.5] * last + [1.0]
    return [np.vstack([share * w, share * b]).astype(np.float32) for share, w, b in zip(shares, weights, biases, strict=True)]


def _box(minimum: np.ndarray, maximum: np.ndarray) -> np.ndarray:
    """Return middle and half range (2, nu) float32 such that no rounding leaves the box."""
    middle, half = ((minimum + maximum) / 2).astype(np.float32), ((maximum - minimum) / 2).astype(np.float32)
    while (outside := (middle + half > maximum) | (middle - half < minimum)).any():
        half[outside] = np.nextafter(half[outside], np.float32(0))
    return np.stack([middle, half])
