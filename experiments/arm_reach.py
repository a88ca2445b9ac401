"""`reflexarc reach`: an arm that knows nothing learns to reach; and `reflexarc retrain`: a model anew from what was recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from dynamics.dataset import transition_data
from dynamics.matmul import enable_fast_float32
from dynamics.workers import Workers, checked_threads
from episodes.episode import Episode
from episodes.store import EpisodeStore
from experiments.arm_check import certify, print_certificate
from experiments.arm_live import HAZARDS, ask_to_go_on, hold_and_disarm
from experiments.arm_log import recorded_episodes
from experiments.arm_policies import ReachingRun
from experiments.arm_reaching import ArmReachingConfig, bridge_config, reaching_model
from experiments.arm_robots import CLIENTS
from experiments.arm_run import ArmRun, ArmRunConfig, reaching, run_path
from experiments.arm_settings import PATIENCE, ArmSettings
from experiments.progress import ProgressDisplay, make_console
from experiments.termination import EXIT_CODE, Terminated, sigterm_raises
from hw_bridge.client import BridgeProcess
from hw_bridge.reaching import reaching_state_space
from policies.model_based import Learner, algorithm
from policies.trial import TrialRecord
from robots.errors import ConfigurationError, HardwareError

if TYPE_CHECKING:
    from experiments.arm_cli import Reach, Retrain


class Keeper:
    """Listens to a run: shows it, and writes a checkpoint after every trial."""

    def __init__(self, run: ArmRun, display: ProgressDisplay) -> None:
        self._run, self._display = run, display
        self.learner: Learner | None = None
        self.trial_started, self.fitting, self.fitted, self.stepped = (display.trial_started, display.fitting, display.fitted,
                                                                       display.stepped)

    def trial_finished(self, record: TrialRecord, episode: Episode) -> None:
        self._run.save(self.learner.records, self.learner.tensors())
        self._display.trial_finished(record, episode)


def reach_command(options: Reach) -> int:
    """Learn to reach, or go on with it; 1 where the dry run refuses or the arm fails, 130 after Ctrl-C."""
    settings = ArmSettings(options.robot, options.address, speed=options.speed,
                           patience=PATIENCE if options.patience is None else options.patience)
    checked_threads(options.threads)
    config = ArmReachingConfig(seed=options.seed)
    if options.trials is not None:
        config = replace(config, learning=replace(config.learning, trials=options.trials))
    if options.steps is not None:
        config = replace(config, learning=replace(config.learning, episode_steps=options.steps))
    safety = bridge_config(options.robot, options.address, config).safety  # refuses an arm that cannot reach, before there is a run
    run = _open_or_create(run_path(options.runs, options.name, f"{options.robot}-reach-seed{options.seed}"),
                          ArmRunConfig(options.robot, options.speed, safety.fingerprint(), reaching=config))
    policy, console = ReachingRun(run, options.threads), make_console()
    with run.locked(), sigterm_raises():
        certificate = certify(settings, safety, "learning", 2.0)
        if not certificate.passed:
            print_certificate(console, certificate)
            return 1
        who = f"{certificate.deployment.model} (serial {certificate.deployment.serial}) at {settings.address}"
        ask_to_go_on(console, f"{who} learns to reach: {config.learning.trials} trials of "
                     f"{config.learning.episode_steps * config.reaching.period:.0f} s, the first "
                     f"{config.learning.random_trials} at random, at most {settings.speed:.0%} of the velocity limits. Between trials it "
                     f"holds still and thinks.\n{policy.words(config.learning.episode_steps)}\n{HAZARDS}", options.yes)
        return _reach(console, run, settings, policy, options.threads)


def _open_or_create(path: Path, config: ArmRunConfig) -> ArmRun:
    """Return the run in `path`, which must be as `config` where there is one already."""
    if not (path / "config.json").exists():
        return ArmRun.create(path, config)
    run = ArmRun.open(path)
    if run.config != config:
        raise ConfigurationError(f"{path} holds another run (robot, seed, speed, trials or settings differ): give this one another --name, "
                                 "or the same options to go on with it")
    return run


def _reach(console: Console, run: ArmRun, settings: ArmSettings, policy: ReachingRun, threads: int | None) -> int:
    enable_fast_float32()
    log = run.path / "logs" / f"{run.path.name}-{len(list(run.path.glob('logs/*.mcap')))}.mcap"
    config = settings.bridge(settings.careful(policy.safety()), f"{settings.robot}-reach", "learning", "exploration", str(log))
    trials = run.config.reaching.learning.trials
    with ProgressDisplay(console, trials, run.records()) as display, BridgeProcess(config) as bridge:
        keeper = Keeper(run, display)
        with reaching(run, bridge.client, keeper, threads) as arm:
            keeper.learner = arm.learner
            try:
                algorithm("1.5")(arm.learner)
                if int(arm.learner.tensors()["steps_since_fit"]):
                    hold_and_disarm(bridge.client)  # the last fit needs no arm
                    arm.learner.fit(trials)
                    run.save(arm.learner.records, arm.learner.tensors())
            except KeyboardInterrupt as stop:
                console.print("stopping: the arm brakes and is held; the same command goes on with it")
                return EXIT_CODE if isinstance(stop, Terminated) else 130
            except HardwareError as error:
                console.print(f"the arm stopped: {error}\nThe finished trials are kept in {run.path}; the same command goes on",
                              highlight=False, markup=False)
                return 1
            finally:
                hold_and_disarm(bridge.client)
    console.print(f"learned: {run.path}; log: {log}\nLet it act with: reflexarc check --policy {run.path} --robot {settings.robot} "
                  f"--address {settings.address}, then reflexarc deploy {run.path} with the certificate", highlight=False, markup=False)
    return 0


def retrain_command(options: Retrain) -> int:
    """Fit a model from nothing to what was recorded, and keep it as a run of its own."""
    enable_fast_float32()
    parent = ArmRun.open(options.run_directory)
    arm, config = CLIENTS[parent.config.robot].arm(), parent.config.reaching
    found = recorded_episodes(options.data, arm)
    lived = [episode for episodes in found.values() for episode in episodes]
    run = ArmRun.create(run_path(options.runs, options.name, f"{parent.path.name}-retrained"),
                        replace(parent.config, parent=str(parent.path), data=tuple(found), distilled=False))
    with run.locked():
        space, store, console = reaching_state_space(arm), EpisodeStore(run.episodes_path), make_console()
        for index, episode in enumerate(lived):
            store.write(index, episode)
        model = reaching_model(arm, config)
        workers = Workers(checked_threads(options.threads))
        try:
            report = model.fit(transition_data(dict(enumerate(lived)), space), workers)
        finally:
            workers.close()
        run.save([], {f"model.{name}": value for name, value in model.tensors().items()} | {"steps_since_fit": torch.tensor(0)})
    console.print(f"{sum(e.steps for e in lived)} control periods in {len(lived)} stretches from {len(found)} file(s), fitted "
                  f"in {report.seconds:.1f} s: {run.path}, anew from {parent.path}\nLet it act with: reflexarc check --policy {run.path}, "
                  f"then reflexarc deploy {run.path} with the certificate", highlight=False, markup=False)
    return 0
