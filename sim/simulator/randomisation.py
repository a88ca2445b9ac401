"""Domain randomisation: models of one machine whose masses, frictions, ... are drawn, and a machine that is not as its model says."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from robots.errors import ConfigurationError, UnknownNameError
from sim.simulator.contacts import may_touch

PROPERTIES: dict[str, tuple[str, ...]] = {
    "mass": ("body_mass", "body_inertia"),
    "friction": ("geom_friction", "pair_friction"),
    "frictionloss": ("dof_frictionloss", "tendon_frictionloss"),
    "damping": ("dof_damping", "dof_dampingpoly", "tendon_damping", "tendon_dampingpoly", "actuator_damping", "actuator_dampingpoly"),
    "stiffness": ("jnt_stiffness", "jnt_stiffnesspoly", "tendon_stiffness", "tendon_stiffnesspoly"),
    "armature": ("dof_armature", "tendon_armature", "actuator_armature"),
    "gain": ("actuator_gainprm", "actuator_biasprm"),
}
"""What a factor can be put on, and the fields of MjModel that it multiplies. Friction is that of contacts, frictionloss and damping are
of joints and tendons; a gain multiplies the whole force of every actuator."""
POSITIVE = ("mass", "gain")
"""Their factors are above zero, the others' at least that."""
_LINEAR_GAINS = (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE)
_LINEAR_BIASES = (mujoco.mjtBias.mjBIAS_NONE, mujoco.mjtBias.mjBIAS_AFFINE)


@dataclass(frozen=True)
class Randomisation:
    """Which properties are drawn from where, for how many variants of a model."""

    ranges: Mapping[str, tuple[float, float]]
    """Smallest and largest factor, by property."""
    variants: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ConfigurationError(f"Randomisation.ranges: expected a property at least ({', '.join(PROPERTIES)}), got none")
        for name, (low, high) in self.ranges.items():
            _check_factor(name, low)
            _check_factor(name, high)
            if low > high:
                raise ConfigurationError(f"range of {name!r}: expected the smaller factor first, got {low:g} to {high:g}")
        if self.variants < 1:
            raise ConfigurationError(f"variants: expected at least 1, got {self.variants}")

    def factors(self) -> list[dict[str, float]]:
        """Return the factors of every variant, by property.

        A Latin hypercube: each range is cut into as many parts as there are variants, and a factor is drawn from each, so that few
        variants cover it (McKay et al. 1979).
        """
        generator = np.random.default_rng(self.seed)
        drawn = {}
        for name, (low, high) in self.ranges.items():
            places = (generator.permutation(self.variants) + generator.random(self.variants)) / self.variants
            drawn[name] = low + (high - low) * places
        return [{name: float(values[i]) for name, values in drawn.items()} for i in range(self.variants)]

    def of(self, model: mujoco.MjModel) -> tuple[list[mujoco.MjModel], tuple[str, ...]]:
        """Return the variants of `model`, and in words how they differ from it; ConfigurationError as from `altered`."""
        factors = self.factors()
        models = []
        for chosen in factors:
            variant = copy.copy(model)
            _multiply(variant, chosen)
            models.append(variant)
        words = [f"{name} x {', '.join(f'{chosen[name]:.3g}' for chosen in factors)}" for name in self.ranges]
        return models, (f"{self.variants} variants as particles ({'; '.join(words)})",)


@contextlib.contextmanager
def altered(model: mujoco.MjModel, factors: Mapping[str, float]) -> Iterator[None]:
    """Multiply properties of `model` in place within the block; afterwards it is what it was.

    UnknownNameError for a property that is none; ConfigurationError for a factor that cannot be, or a property that this model lacks.
    """
    before = copy.copy(model)
    try:
        if factors:
            _multiply(model, factors)
        yield
    finally:
        for field in _fields(before):
            getattr(model, field)[...] = getattr(before, field)


def read_ranges(settings: Sequence[str], option: str) -> dict[str, tuple[float, float]]:
    """Return the ranges that 'NAME=LOW..HIGH' say; ConfigurationError names `option` for what says something else."""
    found = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        low, dots, high = text.partition("..")
        if not dots:
            raise ConfigurationError(f"{option}: expected NAME=LOW..HIGH, such as mass=0.8..1.2, got {setting!r}")
        found[_new(name, found, option)] = (_number(low, setting, option), _number(high, setting, option))
    return found


def read_factors(settings: Sequence[str], option: str) -> dict[str, float]:
    """Return the factors that 'NAME=FACTOR' say; ConfigurationError names `option` for what says something else."""
    found: dict[str, float] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        found[_new(name, found, option)] = _number(text, setting, option)
        _check_factor(name, found[name])
    return found


def _new(name: str, found: Mapping[str, object], option: str) -> str:
    if name in found:
        raise ConfigurationError(f"{option}: {name!r} was given twice")
    return name


def _number(text: str, setting: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"{option}: expected a number, such as 1.2, got {text!r} in {setting!r}") from None


def _check_factor(name: str, factor: float) -> None:
    if name not in PROPERTIES:
        raise UnknownNameError("property of a model", name, PROPERTIES)
    if not math.isfinite(factor) or factor < 0.0 or (factor == 0.0 and name in POSITIVE):
        least = "above 0" if name in POSITIVE else "of at least 0"
        raise ConfigurationError(f"factor of {name!r}: expected a finite number {least}, got {factor:g}")


def _multiply(model: mujoco.MjModel, factors: Mapping[str, float]) -> None:
    """Multiply properties of `model` and work out again what follows from them."""
    for name, factor in factors.items():
        _check_factor(name, factor)
        _check_has(model, name)
        for field in PROPERTIES[name]:
            getattr(model, field)[...] *= factor
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _check_has(model: mujoco.MjModel, name: str) -> None:
    """Raise ConfigurationError where a factor on the property would change nothing, or not what it says."""
    if name == "gain" and not (np.isin(model.actuator_gaintype, _LINEAR_GAINS).all()
                               and np.isin(model.actuator_biastype, _LINEAR_BIASES).all()):
        raise ConfigurationError("'gain': this model has actuators (muscles, say) whose force is not linear in their parameters; choose "
                                 "another property")
    if not any(getattr(model, field).any() for field in PROPERTIES[name]) or (name == "friction" and not may_touch(model)):
        present = [other for other in PROPERTIES if any(getattr(model, field).any() for field in PROPERTIES[other])]
        raise ConfigurationError(f"{name!r}: this model has none, so that a factor on it would change nothing; it has "
                                 f"{', '.join(other for other in present if other != name)}")


def _fields(model: mujoco.MjModel) -> Iterator[str]:
    """Yield the names of the arrays of `model` that can be written."""
    for name in dir(model):
        if not name.startswith("_") and isinstance(value := getattr(model, name), np.ndarray) and value.size and value.flags.writeable:
            yield name
