"""`reflexarc bench learn`: runs a rung of the ladder, seed after seed, and writes its curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dynamics.workers import checked_threads
from experiments.bench.ladder import LADDER, LadderTask, ladder_task
from experiments.bench.ladder_result import make_result, tell_later_marks
from experiments.bench.ladder_rows import curves, make_rows, merge, pitch_figures, read_rows, without_machine, write_rows
from experiments.bench.options import BenchOptions
from experiments.bench.result import BenchResult, machine
from experiments.config import RunConfig, to_json
from experiments.learn import learn, new_run
from experiments.run_directory import RunDirectory, replace_file
from experiments.termination import sigterm_raises
from policies.trial import TrialRecord
from robots.errors import ConfigurationError, VersionError


def default_out() -> Path:
    """Return where the curves go: docs/ladder in a checkout of Reflexarc, else ladder, both in the working directory."""
    return Path("docs/ladder") if Path("docs").is_dir() and Path("experiments/bench/ladder_run.py").is_file() else Path("ladder")


def bench_ladder(console: Console, options: BenchOptions, threads: int | None) -> BenchResult:
    """Live every seed of a rung to `steps` control periods, going on where earlier calls stopped; write CSV, picture and page.

    UserError, before anything is lived, for an unknown task, steps that do not fit, and runs of other settings.
    """
    entry = ladder_task(options.task or "")
    seeds = _seeds(entry, options)
    configs = {seed: replace(entry.run_config(), seed=seed) for seed in seeds}
    steps = _steps(entry, options.steps, configs[seeds[0]].learning.episode_steps)
    here = machine(checked_threads(threads))
    out = options.out if options.out is not None else default_out()
    file = out / f"{entry.slug}.csv"
    read_rows(file)  # refuses a damaged file now, not after hours
    for seed, config in configs.items():
        _existing(config, _path(entry, seed, options.runs))
    with sigterm_raises():
        for config in configs.values():
            _live(console, entry, config, steps, options.runs, file, here, threads)
            write_pages(out)
    tell_later_marks(console, entry, steps)
    console.print(f"curves: {file}, {file.with_suffix('.png')}, {_page(out)}", highlight=False)
    found = curves(read_rows(file))
    return make_result(entry, {seed: found[seed] for seed in seeds}, steps, here)


def _seeds(entry: LadderTask, options: BenchOptions) -> tuple[int, ...]:
    if options.seed_list is not None and options.seeds is not None:
        raise ConfigurationError("--seeds and --seed-list: give one of the two")
    if options.seed_list is not None:
        if not options.seed_list or len(set(options.seed_list)) != len(options.seed_list):
            raise ConfigurationError(f"--seed-list: expected different seeds, at least one, got {options.seed_list}")
        return options.seed_list
    seeds = entry.seeds if options.seeds is None else options.seeds
    if seeds < 1:
        raise ConfigurationError(f"--seeds: expected at least 1, got {seeds}")
    return tuple(range(seeds))


def _steps(entry: LadderTask, asked: int | None, episode_steps: int) -> int:
    steps = entry.steps if asked is None else asked
    if not episode_steps <= steps <= entry.longest:
        raise ConfigurationError(f"--steps: expected {episode_steps} (one trial) to {entry.longest} control periods for {entry.task}, "
                                 f"got {steps}")
    return steps


def _path(entry: LadderTask, seed: int, runs: Path) -> Path:
    return runs / "ladder" / f"{entry.slug}-seed{seed}"


def _existing(config: RunConfig, path: Path) -> RunDirectory | None:
    """Return the run of an earlier call, None where there is none; ConfigurationError if it has other settings."""
    if not (path / "config.json").exists():
        return None
    way_out = f"Choose another place with --runs DIR, or remove it: rm -r {path}"
    try:
        run = RunDirectory.open(path)
    except VersionError as error:
        raise VersionError(f"{path}: was begun by another version of Reflexarc and cannot go on ({error}). {way_out}") from error
    if run.config != config:
        raise ConfigurationError(f"{path}: was begun with other settings ({'; '.join(differences(run.config, config))}). {way_out}")
    return run


def differences(there: RunConfig, here: RunConfig) -> list[str]:
    """Return the settings in which two configurations differ, in words."""
    one, other = _flat("", to_json(there)), _flat("", to_json(here))
    return [f"{name} is {json.dumps(one.get(name))} there, {json.dumps(other.get(name))} here"
            for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def _flat(prefix: str, values: object) -> dict[str, object]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {name: value for key, part in values.items() for name, value in _flat(f"{prefix}.{key}" if prefix else key, part).items()}


def _live(console: Console, entry: LadderTask, config: RunConfig, steps: int, runs: Path, file: Path, here: str,
          threads: int | None) -> None:
    """Take one seed to `steps` control periods, or read it where it got so far before, and write the CSV."""
    path, named = _path(entry, config.seed, runs), f"{entry.task}, seed {config.seed}"
    run = _existing(config, path) or new_run(config, path.parent, path.name)
    before = _records(run)
    if _done(config, before, steps):
        console.print(f"{named}: {sum(r.steps for r in before)} control periods were lived before, in {path}",
                      highlight=False)
        _keep(entry, run, before, len(before), file, here, console)
        return
    console.print(f"{named}, to {steps} control periods, in {path}", highlight=False)
    try:
        records = learn(run, console, threads, stop_after=steps)
    except KeyboardInterrupt:
        if records := _records(run):
            _keep(entry, run, records, len(before), file, here, console)
        console.print("stopped; the same command goes on")
        raise
    _keep(entry, run, records, len(before), file, here, console)


def _records(run: RunDirectory) -> list[TrialRecord]:
    checkpoint = run.load()
    return checkpoint.records if checkpoint is not None else []


def _done(config: RunConfig, records: Sequence[TrialRecord], steps: int) -> bool:
    """Return whether no further trial fits into `steps` control periods, as `Learner.remaining` has it."""
    lived = sum(record.steps for record in records)
    return len(records) >= config.learning.trials or lived + config.learning.episode_steps > steps


def _keep(entry: LadderTask, run: RunDirectory, records: Sequence[TrialRecord], before: int, file: Path, here: str,
          console: Console) -> None:
    """Put the trials of a seed into the CSV; of the first `before`, which another call lived, the CSV may know the machine."""
    store = run.store()
    pitches = None if entry.pitch is None else [pitch_figures(store.read(i), entry.pitch) for i in range(len(records))]
    known = read_rows(file)
    rows = make_rows(run.config, records, [None] * before + [here] * (len(records) - before), pitches)
    noted = {without_machine(row): row.machine for row in known}
    rows = [row if row.machine is not None else replace(row, machine=noted.get(row)) for row in rows]
    merged, left_out = merge(known, rows)
    if left_out:
        console.print(f"{file}: seeds {', '.join(map(str, left_out))} were run with other settings and are left out now")
    write_rows(file, merged)


def write_pages(out: Path) -> None:
    """Draw the picture of every rung that has a CSV in `out`, and bring the page beside the folder up to date."""
    from experiments.bench.ladder_figure import draw_curves  # brings matplotlib
    from experiments.bench.ladder_page import write_page

    for entry in LADDER.values():
        if rows := read_rows(out / f"{entry.slug}.csv"):
            replace_file(out / f"{entry.slug}.png", draw_curves(entry, rows))
    write_page(_page(out), out)


def _page(out: Path) -> Path:
    return out.parent / f"{out.name}.md"
