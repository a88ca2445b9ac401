"""What candidate plans cost where MuJoCo is the model."""

from __future__ import annotations

import torch
from torch import Tensor

from planners.cost import Cost
from planners.evaluation import Explanation, explained, particle_costs
from planners.risk import make_risk
from sim.simulator.simulator_model import SimulatorModel


class SimulatorEvaluator:
    """An `Evaluator` over the simulator: a particle for every variant of the model, float64, no noise.

    Torch's own threads are switched off in the whole process, as by `Workers`: they would cut sums by their number, and wait for work
    on the cores that the physics needs.
    """

    dtype = torch.float64

    def __init__(self, model: SimulatorModel, cost: Cost, risk: str = "mean") -> None:
        """`risk`: over the variants, as in `planners.risk.make_risk`."""
        self.model, self.cost = model, cost
        self._risk = make_risk(risk)
        torch.set_num_threads(1)

    @torch.no_grad()
    def costs(self, x0: Tensor, actions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See `Evaluator.costs`."""
        actions = actions.double()
        states = self._states(x0, actions)
        particles = particle_costs(self.cost, x0, states, actions)
        if particles.shape[0] == 1:
            return torch.nan_to_num(particles[0], nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
        costs = self._risk(particles)
        # a risk measure may overlook a particle that diverged
        return torch.where(costs.isfinite() & particles.isfinite().all(0), costs, torch.inf)

    @torch.no_grad()
    def explain(self, x0: Tensor, actions: Tensor) -> Explanation:
        """See `Evaluator.explain`."""
        actions = actions.double().unsqueeze(0)
        return explained(self.cost, x0, self._states(x0, actions)[:, :, 0], actions[0])

    def _states(self, x0: Tensor, actions: Tensor) -> Tensor:
        """Return states (H, P, N, nx); a buffer."""
        return torch.from_numpy(self.model.rollouts(x0.double().numpy(), actions.numpy())).permute(2, 0, 1, 3)
