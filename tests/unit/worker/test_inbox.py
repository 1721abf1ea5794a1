from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrator.log.aio import DeliveredTask
from orchestrator.protocol.tasks import ActivityTask, Task
from orchestrator.worker.inbox import (
    REMEMBER_MS,
    STALE_AFTER_MS,
    DeliveryKey,
    InboxRules,
    Returned,
    ReturnReason,
    Verdict,
    key_of,
)
from tests.unit.worker.tasks import NOW_MS, activity_task, cancel_task


def receive(
    rules: InboxRules, *tasks: Task, at: int = NOW_MS, may_start: bool = True, occupied: int = 0
) -> Verdict:
    return rules.receive([DeliveredTask(task, at) for task in tasks], may_start=may_start, occupied=occupied)


def finish(rules: InboxRules, task: ActivityTask) -> None:
    rules.ended(key_of(task))
    rules.reported(key_of(task))


@pytest.fixture
def rules() -> InboxRules:
    return InboxRules("w1", slots=2)


def test_a_delivery_is_started_and_takes_a_slot(rules: InboxRules) -> None:
    task = activity_task()
    assert receive(rules, task) == Verdict(start=[task])
    assert (rules.running, rules.busy) == (1, 1)


@pytest.mark.parametrize("phase", ["running", "ended", "reported"])
def test_a_repeated_delivery_is_ignored_in_every_phase(rules: InboxRules, phase: str) -> None:
    task = activity_task()
    receive(rules, task)
    if phase != "running":
        rules.ended(key_of(task))
    if phase == "reported":
        rules.reported(key_of(task))
    assert receive(rules, task) == Verdict()
    assert rules.ignored == 1


@pytest.mark.parametrize("field", ["run_id", "activity_id", "attempt", "dispatch"])
def test_what_differs_in_any_part_of_its_key_is_another_delivery(rules: InboxRules, field: str) -> None:
    task = activity_task()
    other = replace(task, **{field: "run-2" if field == "run_id" else 2})
    assert receive(rules, task, other) == Verdict(start=[task, other])


def test_a_returned_delivery_is_remembered_like_any_other(rules: InboxRules) -> None:
    tasks = [activity_task(activity_id=n) for n in (1, 2, 3)]
    assert receive(rules, *tasks).give_back == [Returned(tasks[2], ReturnReason.NO_SLOT)]
    finish(rules, tasks[0])
    assert receive(rules, tasks[2]) == Verdict(), "its return is on the way"
    rules.reported(key_of(tasks[2]))
    assert receive(rules, tasks[2]) == Verdict(), "its return is durable"


def test_a_slot_is_free_when_the_attempt_ended_and_not_only_when_it_is_reported(rules: InboxRules) -> None:
    first, second, third = (activity_task(activity_id=n) for n in (1, 2, 3))
    receive(rules, first, second)
    rules.ended(key_of(first))
    assert receive(rules, third) == Verdict(start=[third])


def test_slots_of_an_earlier_incarnation_count(rules: InboxRules) -> None:
    task, surplus = activity_task(), activity_task(activity_id=2)
    verdict = receive(rules, task, surplus, occupied=1)
    assert verdict == Verdict(start=[task], give_back=[Returned(surplus, ReturnReason.NO_SLOT)])


@pytest.mark.parametrize(
    ("late_ms", "stale"), [(-5_000, False), (STALE_AFTER_MS, False), (STALE_AFTER_MS + 1, True)]
)
def test_a_delivery_that_was_appended_long_after_its_dispatch_is_returned(
    rules: InboxRules, late_ms: int, stale: bool
) -> None:
    task = activity_task()
    verdict = receive(rules, task, at=NOW_MS + late_ms)
    assert verdict == (
        Verdict(give_back=[Returned(task, ReturnReason.STALE)]) if stale else Verdict(start=[task])
    )


def test_a_delivery_is_forgotten_after_five_minutes_of_append_time_and_then_stale(rules: InboxRules) -> None:
    task = activity_task()
    receive(rules, task)
    finish(rules, task)
    receive(rules, at=NOW_MS)
    unrelated = activity_task(activity_id=9, worker="another")
    receive(rules, unrelated, at=NOW_MS + REMEMBER_MS)
    assert receive(rules, task, at=NOW_MS + REMEMBER_MS) == Verdict(), "remembered for all of the time"
    receive(rules, unrelated, at=NOW_MS + 2 * REMEMBER_MS)
    assert rules.remembered == 0
    assert receive(rules, task, at=NOW_MS + 2 * REMEMBER_MS).give_back == [Returned(task, ReturnReason.STALE)]


def test_what_is_not_reported_is_never_forgotten(rules: InboxRules) -> None:
    running, ended = activity_task(), activity_task(activity_id=2)
    receive(rules, running, ended)
    rules.ended(key_of(ended))
    assert receive(rules, running, ended, at=NOW_MS + 100 * REMEMBER_MS) == Verdict()


def test_an_append_time_that_steps_back_changes_nothing(rules: InboxRules) -> None:
    task = activity_task()
    receive(rules, task)
    finish(rules, task)
    assert receive(rules, task, at=NOW_MS - 60_000) == Verdict()


def test_after_such_a_step_back_nothing_is_forgotten_early(rules: InboxRules) -> None:
    task = activity_task()
    receive(rules, at=NOW_MS)
    receive(rules, activity_task(worker="another"), at=NOW_MS + REMEMBER_MS)
    receive(rules, task, at=NOW_MS)
    finish(rules, task)
    receive(rules, activity_task(worker="another"), at=NOW_MS + REMEMBER_MS + 60_000)
    assert receive(rules, task, at=NOW_MS) == Verdict()


def test_tasks_of_another_incarnation_are_ignored(rules: InboxRules) -> None:
    other = activity_task(worker="w0")
    assert receive(rules, other, cancel_task(other)) == Verdict()
    assert rules.ignored == 2


def test_what_may_not_start_is_held_and_started_once_later(rules: InboxRules) -> None:
    task = activity_task()
    assert receive(rules, task, task, may_start=False) == Verdict()
    assert (rules.running, rules.busy, rules.ignored) == (0, 1, 1)
    assert rules.release() == [task]
    assert rules.release() == []
    assert receive(rules, task) == Verdict()


def test_what_is_held_takes_a_slot(rules: InboxRules) -> None:
    tasks = [activity_task(activity_id=n) for n in (1, 2, 3)]
    verdict = receive(rules, *tasks, may_start=False)
    assert verdict == Verdict(give_back=[Returned(tasks[2], ReturnReason.NO_SLOT)])


def test_draining_returns_what_is_held_and_what_comes_but_not_what_runs(rules: InboxRules) -> None:
    running, held, late = (activity_task(activity_id=n) for n in (1, 2, 3))
    receive(rules, running)
    receive(rules, held, may_start=False)
    assert rules.drain() == [Returned(held, ReturnReason.DRAINING)]
    verdict = receive(rules, running, held, late)
    assert verdict == Verdict(give_back=[Returned(late, ReturnReason.DRAINING)])
    assert rules.release() == []


def test_cancellation_reaches_what_runs(rules: InboxRules) -> None:
    task = activity_task()
    receive(rules, task)
    assert receive(rules, cancel_task(task)) == Verdict(cancel=[key_of(task)])


def test_cancellation_of_what_is_held_ends_it_unstarted(rules: InboxRules) -> None:
    task = activity_task()
    receive(rules, task, may_start=False)
    assert receive(rules, cancel_task(task)) == Verdict(canceled=[task])
    assert rules.release() == []
    assert receive(rules, task) == Verdict(), "it is remembered"


@pytest.mark.parametrize("field", ["run_id", "activity_id", "attempt", "dispatch"])
def test_cancellation_of_anything_else_is_ignored(rules: InboxRules, field: str) -> None:
    task = activity_task()
    receive(rules, task)
    other = replace(cancel_task(task), **{field: "run-2" if field == "run_id" else 2})
    assert receive(rules, other) == Verdict()
    rules.ended(key_of(task))
    assert receive(rules, cancel_task(task)) == Verdict(), "it has ended"


steps = st.lists(
    st.tuples(
        st.sampled_from(["new", "repeat", "cancel", "end", "report", "release", "drain", "wait"]),
        st.integers(0, 1_000),
    ),
    max_size=120,
)


@given(steps, st.integers(1, 3))
def test_whatever_comes_no_delivery_is_started_twice_and_each_has_one_report(
    plan: list[tuple[str, int]], slots: int
) -> None:
    rules = InboxRules("w1", slots)
    now = NOW_MS
    sent: list[ActivityTask] = []
    running: list[ActivityTask] = []
    unreported: list[ActivityTask] = []
    started: Counter[DeliveryKey] = Counter()
    reports: Counter[DeliveryKey] = Counter()

    def obey(verdict: Verdict) -> None:
        running.extend(verdict.start)
        started.update(map(key_of, verdict.start))
        over = [returned.task for returned in verdict.give_back] + verdict.canceled
        reports.update(map(key_of, over))
        unreported.extend(over)

    for step, number in plan:
        if step == "new":
            sent.append(activity_task(activity_id=len(sent), dispatched_time_ms=now))
            obey(receive(rules, sent[-1], at=now, may_start=number % 3 > 0))
        elif step == "repeat" and sent:
            obey(receive(rules, sent[number % len(sent)], at=now, may_start=number % 3 > 0))
        elif step == "cancel" and sent:
            obey(receive(rules, cancel_task(sent[number % len(sent)]), at=now))
        elif step == "end" and running:
            task = running.pop(number % len(running))
            rules.ended(key_of(task))
            reports[key_of(task)] += 1
            unreported.append(task)
        elif step == "report" and unreported:
            rules.reported(key_of(unreported.pop(number % len(unreported))))
        elif step == "release":
            obey(Verdict(start=rules.release()))
        elif step == "drain" and number % 10 == 0:
            obey(Verdict(give_back=rules.drain()))
        elif step == "wait":
            now += number * 400
        assert rules.running == len(running)
        assert rules.busy <= slots
        assert all(times == 1 for times in started.values())
        for key, times in reports.items():
            # A repeat of what is forgotten is returned, whatever its report said: same request id, no effect.
            assert times == 1 or now - sent[key.activity_id].dispatched_time_ms > REMEMBER_MS
