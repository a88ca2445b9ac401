"""`reflexarc bench planners`: every planner on a ladder of tasks, at equal time and at equal rollouts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from dynamics.workers import checked_threads
from experiments.bench.options import BenchOptions
from experiments.bench.planners_cells import Asked, Cell, code_fingerprint, read_cells, to_csv, write_cell
from experiments.bench.planners_field import BUDGET_MS, ENTRANTS, ROLLOUTS, TASKS, chosen_entrants, chosen_tasks
from experiments.bench.planners_live import ROLLOUTS as EQUAL_ROLLOUTS
from experiments.bench.planners_live import TIME as EQUAL_TIME
from experiments.bench.planners_live import ask, live
from experiments.bench.planners_marks import PUNCTUAL
from experiments.bench.planners_progress import EpisodesProgress, Remaining
from experiments.bench.result import Bar, BenchResult, machine
from experiments.run_directory import replace_file
from experiments.termination import sigterm_raises
from robots.errors import ConfigurationError, StoreError
from sim.catalog import make_task

COLUMNS = ("task", "planner", "equal", "seeds", "score", "plan [ms]", "95 %", "within", "rollouts")
SEEDS = 3
PAGE, TABLE, PICTURE = "planners.md", "planners.csv", "images/planners.png"


def default_out(options: BenchOptions) -> Path:
    """Return where the page goes: docs in a checkout of Reflexarc where all is asked for, else planners, both in the working directory."""
    whole = not (options.tasks or options.planners or options.steps or options.budget_ms)
    return Path("docs") if whole and Path("docs").is_dir() and Path("experiments/bench/planners_run.py").is_file() else Path("planners")


def bench_planners(console: Console, options: BenchOptions, threads: int | None) -> BenchResult:
    """Live what is asked for and was not lived before, in `options.runs`, and write table, picture and page of all that was.

    UserError, before anything is lived, for unknown names and numbers that cannot be.
    """
    budget = BUDGET_MS if options.budget_ms is None else options.budget_ms
    if not budget > 0:
        raise ConfigurationError(f"--budget-ms: expected a positive time [ms], got {budget}")
    if options.steps is not None and options.steps < 1:
        raise ConfigurationError(f"--steps: expected at least 1 control period, got {options.steps}")
    if options.skip_longer is not None and not options.skip_longer > 0:
        raise ConfigurationError(f"--skip-longer: expected a positive time [min], got {options.skip_longer}")
    folder, here, today = options.runs / "planners", machine(checked_threads(threads)), code_fingerprint()
    longest = None if options.skip_longer is None else 60 * options.skip_longer
    out = options.out if options.out is not None else default_out(options)
    _make(folder)
    _make(out)
    names = [entry.task for entry in chosen_tasks(options.tasks)], [entrant.planner for entrant in chosen_entrants(options.planners)]
    wanted = everything(*names, _seeds(options), budget, options.steps)
    kept = read_cells(folder)
    known = {cell.asked for cell in kept if cell.machine == here and (cell.code == today or not options.renew) and _stands(cell, longest)}
    left = [asked for asked in wanted if asked not in known]
    if done := len(wanted) - len(left):
        console.print(f"{done} of {len(wanted)} episodes were lived before, in {folder}", highlight=False)

    def write() -> list[Cell]:
        cells = read_cells(folder)
        seeds = sorted({cell.asked.seed for cell in cells})
        _write(out, cells, everything(list(TASKS), list(ENTRANTS), seeds, budget, options.steps), here, today)
        return cells

    try:
        with sigterm_raises():
            _live_all(left, folder, here, today, threads, longest, Remaining(kept), console, write)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on")
        raise
    chosen = [cell for cell in write() if cell.asked in set(wanted)]
    console.print(f"page: {out / PAGE}, with {out / TABLE} and {out / PICTURE}", highlight=False)
    if stale := sum(cell.code != today for cell in chosen):
        console.print(f"{stale} of {len(chosen)} episodes are of other code than today's, and marked so; --renew lives them anew",
                      highlight=False)
    return _result(sorted(chosen, key=lambda cell: wanted.index(cell.asked)), here)


def _stands(cell: Cell, longest: float | None) -> bool:
    """Return whether a cell need not be lived again: not so where a package was missing, or where it was skipped and need not be now."""
    return not cell.failed and not (cell.skipped and (longest is None or cell.plan_ms * 1e-3 * cell.asked.steps <= longest))


def everything(tasks: Sequence[str], planners: Sequence[str], seeds: Iterable[int], budget: float, steps: int | None) -> list[Asked]:
    """Return all episodes, task by task."""
    return [ask(TASKS[task], ENTRANTS[planner], equal, allowance, steps, seed) for task in tasks for planner in planners
            for equal, allowance in ((EQUAL_TIME, budget), (EQUAL_ROLLOUTS, float(ROLLOUTS))) for seed in seeds]


def _seeds(options: BenchOptions) -> Sequence[int]:
    if options.seed_list is not None and options.seeds is not None:
        raise ConfigurationError("--seeds and --seed-list: give one of the two")
    return tuple(dict.fromkeys(options.seed_list)) if options.seed_list is not None else range(options.seeds or SEEDS)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made ({error.strerror or error}); choose another place with --runs or --out DIR") from error


def _live_all(left: Sequence[Asked], folder: Path, here: str, code: str, threads: int | None, longest: float | None, remaining: Remaining,
              console: Console, write: Callable[[], object]) -> None:
    """Live all that is left and keep every cell as soon as it is there; `write` is called between two tasks."""
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(EpisodesProgress(left, remaining.words(left), console))
        robots = {}
        for i, asked in enumerate(left):
            task = make_task(asked.task)
            if asked.task not in robots:
                robots[asked.task] = stack.enter_context(task.robot())
            progress.begin(i)
            cell = live(asked, ENTRANTS[asked.planner], task, robots[asked.task], threads, progress.advance, here, code, longest)
            write_cell(folder, cell)
            remaining.learn(cell)
            words = remaining.words(left[i + 1:]) if left[i + 1:] else "done"
            progress.end(i, words)
            console.print(f"{i + 1}/{len(left)} {_line(cell)}; {words}", highlight=False, markup=False)
            if i + 1 < len(left) and left[i + 1].task != asked.task:
                write()


def _line(cell: Cell) -> str:
    asked = cell.asked
    came = f"{cell.score:.4g} a period, {cell.plan_ms:.1f} ms a plan, {cell.rollouts:.0f} rollouts" if cell.score is not None else cell.note
    return f"{asked.task}, {asked.planner}, equal {asked.equal}, seed {asked.seed}: {came} ({cell.seconds:.0f} s)"


def _write(out: Path, cells: list[Cell], comparable: list[Asked], here: str, today: str) -> None:
    from experiments.bench.planners_figure import draw_planners  # brings matplotlib
    from experiments.bench.planners_page import write_page

    order = {asked: i for i, asked in enumerate(comparable)}
    shown = sorted((cell for cell in cells if cell.asked in order), key=lambda cell: order[cell.asked])
    if not shown:
        return
    _make((out / PICTURE).parent)
    replace_file(out / TABLE, to_csv(shown))
    replace_file(out / PICTURE, draw_planners(shown, today))
    write_page(out / PAGE, shown, PICTURE, TABLE, here, today, len(cells) - len(shown))


def _result(cells: list[Cell], here: str) -> BenchResult:
    rows, bars = [], []
    for key in dict.fromkeys((c.asked.task, c.asked.planner, c.asked.equal) for c in cells):
        same = [c for c in cells if (c.asked.task, c.asked.planner, c.asked.equal) == key]
        lived = [c for c in same if c.score is not None]
        if not lived:
            rows.append((*key, 0, None, _median(c.plan_ms for c in same), None, None, None))
            continue
        rows.append((*key, len(lived), *(_median(getattr(c, name) for c in lived)
                                         for name in ("score", "plan_ms", "plan_ms_95", "within", "rollouts"))))
    held = [c.within for c in cells if c.within is not None and ENTRANTS[c.asked.planner].samples]
    if held:
        bars.append(Bar("plans by sampling within the budget, least of an episode", min(held), PUNCTUAL, at_least=True))
    return BenchResult("planners", COLUMNS, rows, bars, here)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
