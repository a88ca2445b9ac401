"""Tasks of our own, on scenes of our own, by name."""

from __future__ import annotations

from collections.abc import Callable

from sim.task import Task
from sim.tasks.cartpole import cartpole
from sim.tasks.half_cheetah import half_cheetah
from sim.tasks.pendulum import pendulum
from sim.tasks.pusher import pusher7
from sim.tasks.reacher import reacher7

OWN_TASKS: dict[str, Callable[[], Task]] = {
    "pendulum": pendulum,
    "cartpole": cartpole,
    "reacher7": reacher7,
    "pusher7": pusher7,
    "half-cheetah": half_cheetah,
}
"""Each function returns its task; nothing is compiled before `Task.robot` is called."""
