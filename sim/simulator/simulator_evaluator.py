"""What candidate plans cost where MuJoCo is the model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from planners.compiler.compiled_cost import compiled_cost
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
        self._compiled = compiled_cost(cost, model.state_space, model.nu)
        torch.set_num_threads(1)

    def costs(self, x0: Tensor, actions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See `Evaluator.costs`."""
        x, u = x0.numpy(force=True), actions.numpy(force=True)
        if self._compiled is None:
            particles = self._charged_by_torch(x0.detach(), self.model.rollouts(x, u), actions.detach())
        else:
            particles = self.model.charged(x, u, self._compiled)
        if len(particles) == 1:
            costs = particles[0].copy()
            costs[~np.isfinite(costs)] = np.inf
            return torch.from_numpy(costs)
        charged = torch.from_numpy(particles)
        costs = self._risk(charged)
        # a risk measure may overlook a particle that diverged
        return torch.where(costs.isfinite() & charged.isfinite().all(0), costs, torch.inf)

    @torch.no_grad()
    def _charged_by_torch(self, x0: Tensor, states: np.ndarray, actions: Tensor) -> np.ndarray:
        """Return the costs (P, N), NaN where rollouts diverged: a cost may look at nothing that is NaN."""
        costs = particle_costs(self.cost, x0.double(), torch.from_numpy(states).permute(2, 0, 1, 3), actions.double()).numpy()
        return np.where(np.isnan(states[:, :, -1]).any(-1), np.nan, costs)

    @torch.no_grad()
    def explain(self, x0: Tensor, actions: Tensor) -> Explanation:
        """See `Evaluator.explain`."""
        x, u = x0.double().numpy(), actions.double().unsqueeze(0).numpy()
        lived = self.model.rollouts(x, u)[:, 0]  # (P, H, nx)
        if self._compiled is None:
            return explained(self.cost, x0, torch.from_numpy(lived.swapaxes(0, 1)), actions.double())
        u = np.broadcast_to(u, (len(lived), *actions.shape))
        by_term = {name: float(sums.mean()) for name, sums in self._compiled.by_term(x, lived, u).items()}
        states = torch.from_numpy(np.concatenate([np.broadcast_to(x, (len(lived), 1, len(x))), lived], axis=1))
        return Explanation(states.mean(0), states.std(0, correction=0), by_term)
