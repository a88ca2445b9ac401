"""The planner goes on as soon as a plan is done, with the newest reading, exactly where that makes plans fresher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policies.asynchronous.committed_plan import Way
from policies.asynchronous.exchange import PlanAnswer, PlanRequest, following
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.request_planner import RequestPlanner
from policies.asynchronous.worker import ThreadWorker
from tests.policies.asynchronous_parts import (
    COMMAND,
    DT,
    HORIZON,
    MEASURED,
    PERIOD,
    SPACE,
    CountingPlanner,
    LawPlanner,
    Slider,
    slider,
    timed,
)


def lived(planner, taken, steps, deaf=False, robot=None):
    """Return the worker, the policy and the commands of a robot that does not wait for plans, of which the n-th takes `taken(n)` periods.
    """
    robot = robot or Slider()
    clock, worker, policy = timed(planner, taken, deaf=deaf)
    policy.reset(0)
    observation, commands = robot.reset(0), []
    begins = None
    for k in range(steps):
        clock.now = clock.now if begins is None else begins + k * PERIOD
        command = policy.act(observation)
        begins = clock.now if begins is None else begins
        commands.append(float(command.values[0]))
        policy.ahead(observation, robot.send(command))
        observation = robot.tick()
    return worker, policy, commands


@pytest.mark.parametrize("taken", [0.3, 0.95, 1.0, 1.05, 1.3, 1.5, 1.9, 2.0, 2.2, 2.7, 3.4])
def test_every_plan_begins_no_later_and_no_older_than_where_the_planner_waits_for_the_next_period(taken):
    ages = {deaf: np.array(lived(CountingPlanner(), lambda n: taken, 60, deaf)[1].report.ages) / DT for deaf in (False, True)}
    begun = {deaf: np.flatnonzero(np.diff(seen) < 0.5) + 1 for deaf, seen in ages.items()}
    count = len(begun[True])
    assert len(begun[False]) >= count and (begun[False][:count] <= begun[True]).all()
    for deaf in (False, True):
        np.testing.assert_allclose(ages[deaf][begun[deaf]], np.ceil(taken - 1e-9), atol=1e-6)
    assert ages[False].max() <= ages[True].max() + 1e-6
    if taken > 1 and taken % 1 <= 0.5 and taken % 1:  # then another plan can be begun within the last period of the one before
        assert ages[False][10:].mean() < ages[True][10:].mean() - 0.15


def test_a_planner_that_takes_little_more_than_a_period_makes_a_plan_for_nearly_every_one():
    at_once, waiting = (lived(CountingPlanner(), lambda n: 1.1, 60, deaf)[1].report for deaf in (False, True))
    assert waiting.without_fresh == pytest.approx(0.5, abs=0.02) and at_once.without_fresh < 0.12
    assert not at_once.late and at_once.at_once > 40 and waiting.at_once == 0
    assert at_once.delays == pytest.approx([1.1 * DT] * len(at_once.delays)), "the wait for the plan before is no part of a plan's delay"
    assert at_once.too_slow, "it is slower than the robot all the same"


def test_no_plan_is_begun_that_would_be_ready_only_when_a_newer_one_is():
    worker, policy, _ = lived(CountingPlanner(), lambda n: 1.9, 30)
    assert policy.report.at_once <= 2 and [request.after for request in worker.requests[4:]].count(0) >= 12


@pytest.mark.parametrize("gains", [False, True])
def test_a_plan_begun_at_once_is_for_where_the_plan_before_leads_which_nobody_knew_when_it_was_offered(gains):
    """Kicked in its third period: the plan made from the state after it knows of it, the one that is followed then does not."""
    planner, robot = LawPlanner(gains=gains), Slider(kicks={2: 0.7})
    path = [robot.reset(0)]
    step, observed = robot.tick, path.append
    robot.tick = lambda: (observed(step()), path[-1])[1]
    worker, _, _ = lived(planner, lambda n: 1.4, 13, robot=robot)
    truth = np.array([SPACE.state(observation) for observation in path])
    asked, begun = torch.stack(planner.asked).numpy()[4:], [request.after > 0 for request in worker.requests[4:]]
    starts = [3, 5, 6, 8, 9, 11, 12]
    assert begun[:7] == [True, False, True, False, True, False, True]
    np.testing.assert_allclose(asked[1:7], truth[starts[1:]], atol=1e-9)
    assert np.abs(asked[0] - truth[3]).max() > 0.1, "nobody foresaw the kick"


def test_the_warm_start_of_a_plan_begun_at_once_is_shifted_by_the_periods_between_their_beginnings():
    worker, _, commands = lived(CountingPlanner(), lambda n: 1.5, 9)
    assert commands == [300, 301, 400, 500, 501, 600, 700, 701, 800]
    assert [request.later for request in worker.requests[3:8]] == [2, 1, 2, 1, 2]
    assert [request.after > 0 for request in worker.requests[3:8]] == [False, True, False, True, False]


def test_a_late_plan_is_overtaken_by_the_one_begun_as_soon_as_it_was_done():
    worker, policy, commands = lived(CountingPlanner(), lambda n: 2.5 if n == 4 else 0.5, 8)
    assert commands == [300, 301, 302, 500, 501, 502, 600, 700]
    assert policy.report.late == [2] and [request.later for request in worker.requests[2:6]] == [1, 1, 2, 3]


def test_after_a_plan_without_actions_the_next_one_begun_at_once_is_made_afresh_along_the_plan_in_hand():
    planner = CountingPlanner(fails=[5])
    _, policy, commands = lived(planner, lambda n: 1.5, 9)
    assert commands == [300, 301, 400, 401, 402, 600, 700, 701, 800] and policy.report.failures.total() == 1
    assert planner.previous[5] is None and planner.previous[6] is not None


def test_what_was_offered_for_another_plan_too_late_or_to_a_broken_planner_is_not_gone_on_with():
    nowhere = Way.nowhere(np.zeros(2), SPACE, 1)
    made, offer = PlanRequest(np.zeros(2), nowhere, number=4), PlanRequest(np.zeros(2), nowhere, number=6, after=4, begin_by_ns=100)
    answer, broken = (PlanAnswer(None, None, None, 0.0, 1, 0, 0, broken=broken) for broken in (False, True))
    assert following(offer, made, answer, 100) is offer
    assert following(None, made, answer, 100) is None and following(offer, made, answer, 101) is None
    assert following(offer, PlanRequest(np.zeros(2), nowhere, number=5), answer, 100) is None
    assert following(offer, made, broken, 100) is None


def test_an_episode_that_begins_while_a_plan_and_an_offer_are_out_has_nothing_of_them():
    clock, worker, policy = timed(CountingPlanner(), lambda n: 1.5)
    for _episode in range(2):
        policy.reset(3)
        robot = Slider()
        observation = robot.reset(3)
        for _ in range(3):
            command = policy.act(observation)
            policy.ahead(observation, robot.send(command))
            observation = robot.tick()
            clock.now += PERIOD
    assert worker.requests[-1].number > 6 and worker.answers
    policy.reset(4)
    assert not worker.answers
    first = policy.act(Slider().reset(4)).values[0]
    assert first == 100 * len(worker.requests) and worker.requests[-1].seed == 4


def test_no_number_comes_back_where_another_policy_asks_the_same_worker():
    """An offer that the policy before left in shared memory would else be taken for the new one's."""
    worker, before, _ = lived(CountingPlanner(), lambda n: 1.5, 4)
    assert worker.offered is not None or any(request.after for request in worker.requests)
    before.reset(0)
    asked = len(worker.requests)
    policy = AsynchronousPolicy(worker, SPACE, COMMAND, DT, "beside", MEASURED, worker.clock)
    policy.reset(0)
    numbers = [request.number for request in worker.requests]
    assert len(numbers) > asked and len(set(numbers)) == len(numbers) and numbers[asked] > max(numbers[:asked])


def test_the_way_goes_along_a_plan_from_its_beginning_on_and_never_changes_what_is_lived():
    way = Way(np.full((5, 1), -1.0), np.full((6, 2), -2.0), np.full((5, 1, 2), -3.0))
    actions, states, gains = np.arange(3.0)[:, None], np.arange(8.0).reshape(4, 2), np.full((3, 1, 2), 7.0)
    joined = way.joining(actions, states, gains, 3)
    assert joined.actions[:, 0].tolist() == [-1, -1, 0, 1, 2] and joined.gains[:, 0, 0].tolist() == [-3, -3, 7, 7, 7]
    np.testing.assert_array_equal(joined.states[2:5], states[:3])
    late = way.joining(actions, states, gains, 7)  # it should have begun two periods before the way did
    assert late.actions[:, 0].tolist() == [-1, 2, 2, 2, 2] and late.gains[:, 0, 0].tolist() == [-3, 0, 0, 0, 0]
    blind = way.joining(actions, None, None, 4)
    assert blind.actions[:, 0].tolist() == [-1, 0, 1, 2, 2] and not blind.gains[1:].any()
    assert (way.actions == -1.0).all() and (way.states == -2.0).all()


def test_a_thread_goes_on_with_an_offer_by_itself():
    worker = ThreadWorker(lambda: RequestPlanner(CountingPlanner(), slider(), COMMAND))
    nowhere = Way.nowhere(np.zeros(2), SPACE, 1)
    worker.offer(PlanRequest(np.zeros(2), nowhere, number=2, after=1, begin_by_ns=2**62))
    worker.submit(PlanRequest(np.zeros(2), nowhere, number=1, seed=0))
    answers = [worker.result(20.0), worker.result(20.0)]
    assert [answer.goes_on for answer in answers] == [2, 0] and answers[1].actions[0, 0] == 200
    assert answers[1].started_ns >= answers[0].finished_ns and len(answers[0].actions) == HORIZON
    worker.close()
