"""What is kept of the planners' comparison, and what its page makes of it: no figure is taken for what it is not."""

from __future__ import annotations

import csv
import io
import json
import threading
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from experiments.bench.planners_cells import Asked, Cell, read_cells, to_csv, write_cell
from experiments.bench.planners_figure import draw_planners
from experiments.bench.planners_live import settings_of
from experiments.bench.planners_page import END, START, make_tables, write_page
from experiments.bench.planners_progress import EpisodesProgress, Remaining
from experiments.config import with_settings
from planners.catalog import PLANNERS
from robots.errors import StoreError

REACHER, CHEETAH, HERE, TODAY = "dmc:reacher-easy", "dmc:cheetah-run", "a computer", "12345678"


def cell(task=REACHER, planner="icem", equal="time", seed=0, **found) -> Cell:
    asked = Asked(task, planner, equal, 20.0 if equal == "time" else 64.0, 5, ("beta=1.0",), seed)
    figures = {"score": 0.5, "lived": 5, "plan_ms": 15.0, "plan_ms_95": 18.0, "plan_ms_longest": 19.0,
               "within": 1.0 if equal == "time" else None, "rounds": 4.0, "rollouts": 60.0, "note": "", "code": TODAY, "machine": HERE}
    return Cell(asked, **figures | found, seconds=2.0)


def tables(cells) -> list[str]:
    return make_tables(cells, "a.png", "a.csv", HERE, TODAY).splitlines()


def row(lines, planner, number=0) -> list[str]:
    """Return the fields of a planner in the page's table of that number."""
    return [[field.strip() for field in line[1:-1].split("|")] for line in lines if line.startswith(f"| {planner} |")][number]


def test_cells_are_kept_by_all_that_was_asked(tmp_path):
    one = cell()
    others = [replace(one, asked=replace(one.asked, **{name: value})) for name, value in
              {"task": "pusher7", "planner": "cem", "equal": "rollouts", "allowance": 10.0, "steps": 6, "settings": (), "seed": 1}.items()]
    for each in [one, *others, one]:
        write_cell(tmp_path, each)
    assert sorted(map(repr, read_cells(tmp_path))) == sorted(map(repr, [one, *others]))
    (tmp_path / "half.json").write_text('{"asked": ')
    with pytest.raises(StoreError, match=r"half\.json"):
        read_cells(tmp_path)


def test_cells_of_before_today_are_read_and_say_what_they_do_not_know(tmp_path):
    values = asdict(cell(planner="cem"))
    for name in ("why", "config"):
        del values[name]
    (tmp_path / "old.json").write_text(json.dumps(values))
    old, = read_cells(tmp_path)
    assert old == cell(planner="cem") and old.setting("population") is None
    assert row(tables([old]), "cem", 2) == ["cem", "? x 4"]
    asked = replace(old, asked=replace(old.asked, settings=("population=16",)))
    assert row(tables([asked]), "cem", 2) == ["cem", "16 x 4"]
    (tmp_path / "old.json").write_text(json.dumps({name: value for name, value in values.items() if name != "score"}))
    with pytest.raises(StoreError, match=r"old\.json"):
        read_cells(tmp_path)


@pytest.mark.parametrize("planner", PLANNERS)
def test_all_settings_are_kept_so_that_they_can_be_given_again(planner):
    kind = PLANNERS[planner][1]
    config = kind(horizon=17)
    written = settings_of(config)
    assert "horizon=17" in written and with_settings(kind(), [entry for entry in written if not entry.endswith("=null")]) == config


@pytest.mark.parametrize(("scores", "field"), [([0.4], "0.4"), ([0.4, 0.6], "0.5 [0.4, 0.6]"), ([0.9, 0.2, 0.3], "0.3 [0.2, 0.9]"),
                                               ([0.9, None, 0.3], "0.6 [0.3, 0.9] (2 of 3 seeds)"), ([None, 0.7], "0.7 (1 of 2 seeds)")])
def test_a_figure_is_the_median_over_the_seeds_with_its_range_and_says_which_are_missing(scores, field):
    cells = [cell(seed=seed, score=score) for seed, score in enumerate(scores)]
    assert row(tables(cells), "icem")[1] == field
    assert row(tables(list(reversed(cells))), "icem")[1] == field


def test_the_mean_is_of_those_that_lived_all_tasks_and_of_rewards_alone():
    cells = [cell(score=0.5), cell(task=CHEETAH, score=0.9), cell(task="pusher7", score=-3.0), cell(planner="cem"),
             cell(task=CHEETAH, planner="cem", score=None, within=None, plan_ms=400.0, why="too slow", note="a plan takes 400 ms")]
    lines = tables(cells)
    assert row(lines, "icem") == ["icem", "0.5", "0.9", "-3", "**0.700**"]
    assert row(lines, "cem") == ["cem", "0.5", "too slow", "not run", ""]
    assert "- cem on dmc:cheetah-run, equal time: a plan takes 400 ms" in lines


def test_a_planner_of_one_comparison_stands_in_the_other_as_not_run():
    lines = tables([cell(), cell(planner="gradient", equal="rollouts", score=0.25)])
    assert row(lines, "gradient")[1] == "not run" and row(lines, "gradient", 1)[1] == "0.25" and row(lines, "icem", 3)[1] == "not run"
    assert any("`reflexarc bench planners --seeds 1 --steps 5`" in line for line in lines)


@pytest.mark.parametrize(("found", "mark", "words"), [({"within": 0.98}, "*", "took longer than the budget"),
                                                      ({"code": "old00000"}, "†", "1 of 3 episodes were lived with other code"),
                                                      ({"machine": "another"}, "‡", "1 of 3 episodes were lived on another computer")])
def test_what_a_figure_must_not_be_taken_for_is_marked_and_explained(found, mark, words):
    cells = [cell(), cell(seed=1, score=0.6, **found), cell(planner="cem")]
    lines = tables(cells)
    assert row(lines, "icem")[1:] == [f"0.55{mark} [0.5, 0.6]", f"**0.550**{mark}"] and row(lines, "cem")[1] == "0.5 (1 of 2 seeds)"
    assert sum(words in line for line in lines) == 1 and not any(words in line for line in tables([cells[0], cells[2]]))


@pytest.mark.parametrize(("rollouts", "marked"), [(58.0, False), (70.0, False), (28.0, True), (96.0, True)])
def test_rollouts_that_were_not_equal_are_marked_wherever_scores_are_compared(rollouts, marked):
    cells = [cell(equal="rollouts", rollouts=rollouts), cell(planner="cem", equal="rollouts", rollouts=64.0), cell(rollouts=rollouts)]
    lines, mark = tables(cells), "§" if marked else ""
    assert row(lines, "icem", 3)[1:] == [f"0.5{mark}", f"**0.500**{mark}"] and row(lines, "cem", 1)[1] == "0.5"
    assert row(lines, "icem")[1] == "0.5"  # where time is equal, rollouts need not be
    assert sum(line.startswith("§ ") for line in lines) == marked
    like = [replace(each, rollouts=64.0) for each in cells]
    assert (draw_planners(cells, TODAY) != draw_planners(like, TODAY)) == marked


def test_what_no_plans_time_has_in_it_is_said():
    assert any("garbage collections" in line for line in tables([cell()]))


def test_what_was_lived_with_other_settings_is_not_shown_and_counted():
    assert "Kept but not shown: 2 episodes" in make_tables([cell()], "a.png", "a.csv", HERE, TODAY, 2)
    assert not any("not shown" in line for line in tables([cell()]))


def test_what_was_not_lived_is_marked_as_old_too():
    old = cell(score=None, within=None, plan_ms=400.0, equal="rollouts", lived=0, rollouts=None, code="old00000")
    lines = tables([old, cell(seed=1), cell(planner="cem", code="old00000"), cell(planner="mppi", machine="another", score=None, lived=0)])
    assert row(tables([old]), "icem")[1] == "skipped†" and old.skipped
    assert any("1 of 2 episodes were lived and 1 of 2 episodes were given up unlived with other code" in line for line in lines)
    assert any(f"1 of 2 episodes were given up unlived on another computer or with another number of threads (another) than {HERE}" in line
               for line in lines)
    assert not replace(old, plan_ms=None).skipped and not replace(old, asked=replace(old.asked, equal="time")).skipped


def test_what_a_planner_was_given_is_shown_and_kept():
    cells = [cell(seed=seed, config=("horizon=25", f"population={population}")) for seed, population in enumerate((52, 44))]
    cells.append(cell(planner="ilqr", rounds=2.0, config=("horizon=25", "iterations=100000")))
    lines = tables(cells)
    assert row(lines, "icem", 2) == ["icem", "44 to 52 x 4"] and row(lines, "ilqr", 2) == ["ilqr", "2"]
    few = replace(cells[-1], config=("iterations=5",))
    assert row(tables([few]), "ilqr", 2) == ["ilqr", "2 of 5"]
    assert any("dmc:reacher-easy 5 (25)" in line for line in lines)
    read = list(csv.DictReader(io.StringIO(to_csv(cells).decode())))
    assert [line["config"] for line in read] == [" ".join(c.config) for c in cells] and read[0]["score"] == "0.5"


def test_the_picture_changes_with_the_scores_and_with_what_they_are_of():
    cells = [cell(), cell(planner="cem", equal="rollouts", score=None), cell(task="pusher7", score=-3.0)]
    drawn = draw_planners(cells, TODAY)
    others = [draw_planners([replace(cells[0], **change), *cells[1:]], TODAY) for change in ({"score": 0.9}, {"code": "old00000"})]
    assert drawn == draw_planners(cells, TODAY) and len({drawn, *others}) == 3


def test_what_people_write_around_the_tables_stays(tmp_path):
    page = tmp_path / "planners.md"
    write_page(page, [cell()], "a.png", "a.csv", HERE, TODAY)
    page.write_text(page.read_text().replace(END, f"{END}\nwritten by hand"))
    write_page(page, [cell(score=0.125)], "a.png", "a.csv", HERE, TODAY)
    assert "0.125" in page.read_text() and page.read_text().endswith("written by hand\n")
    page.write_text("no markers")
    with pytest.raises(StoreError, match=START):
        write_page(page, [cell()], "a.png", "a.csv", HERE, TODAY)


def test_what_is_left_is_told_by_what_like_episodes_took():
    remaining = Remaining([])
    new = [cell(seed=1).asked, cell(planner="cem").asked, cell(planner="cem", equal="rollouts").asked]
    assert remaining.words(new) == "" and remaining.seconds([]) == 0
    remaining = Remaining([replace(cell(), seconds=10.0), replace(cell(task=CHEETAH, planner="cem"), seconds=30.0)])
    assert remaining.seconds(new) == pytest.approx(10.0 + 30.0 + 20.0)  # itself with another seed; cem elsewhere; whatever there is
    remaining.learn(replace(cell(planner="cem"), seconds=150.0))
    assert remaining.words(new[:2]) == "about 2 min 40 s left" and remaining.words(new[:1]) == "about 10 s left"


def test_the_bar_stands_at_the_end_of_every_episode_lived_or_not_and_draws_nothing_by_itself(monkeypatch):
    monkeypatch.setattr("experiments.bench.planners_progress.SHOWN_EVERY", 1e9)
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    episodes = [cell().asked, cell(planner="cem").asked]
    threads = threading.active_count()
    with EpisodesProgress(episodes, "about 3 s left", console) as progress:
        assert threading.active_count() == threads
        progress.begin(0)
        progress.advance()
        assert "1/10" in console.file.getvalue()
        drawn = len(console.file.getvalue())
        progress.advance()
        assert len(console.file.getvalue()) == drawn  # so soon
        progress.end(0, "about 1 s left")
    assert " 5/10" in console.file.getvalue() and "about 1 s left" in console.file.getvalue()
    assert "icem, equal time, seed 0" in console.file.getvalue()
