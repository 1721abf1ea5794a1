from itertools import pairwise
from math import inf

import pytest

from orchestrator.client.requests import (
    FIRST_REPEAT_S,
    MOST_AWAIT_REPEAT_S,
    MOST_REPEAT_S,
    Due,
    Requests,
)
from orchestrator.errors import UsageError
from orchestrator.protocol.commands import AwaitResult, CancelWorkflow, Command


def cancel(request_id: str = "a") -> CancelWorkflow:
    return CancelWorkflow(workflow_id="w", request_id=request_id)


def repeats(requests: Requests, until: float) -> list[float]:
    """When something is repeated, as a driver sees it that wakes up exactly in time."""
    times: list[float] = []
    while (at := requests.next_at()) <= until:
        times += [at] * len(requests.due(at).repeat)
    return times


def test_nothing_is_due_of_nothing() -> None:
    assert Requests().next_at() == inf
    assert Requests().due(1e9) == Due([], [])


def test_a_command_is_repeated_after_seconds_and_then_ever_more_seldom() -> None:
    requests = Requests()
    requests.add(cancel(), 100.0, None)
    times = repeats(requests, 200.0)
    gaps = [later - earlier for earlier, later in pairwise([100.0, *times])]
    assert gaps[:3] == pytest.approx([FIRST_REPEAT_S, 6.0, MOST_REPEAT_S])
    assert gaps[-1] == MOST_REPEAT_S


def test_waiting_for_a_result_is_repeated_before_the_coordinator_lets_go_of_it() -> None:
    requests = Requests()
    requests.add(AwaitResult(workflow_id="w", request_id="a"), 0.0, None)
    times = repeats(requests, 300.0)
    assert max(later - earlier for earlier, later in pairwise(times)) == MOST_AWAIT_REPEAT_S
    assert MOST_AWAIT_REPEAT_S < 20.0


def test_every_repeat_is_the_same_command() -> None:
    requests, command = Requests(), cancel()
    requests.add(command, 0.0, None)
    assert requests.due(3.0).repeat == [command]
    assert requests.due(3.0).repeat == []
    assert requests.due(9.0).repeat == [command]


def test_an_answered_request_is_not_repeated_and_its_next_answer_is_a_repeat() -> None:
    requests = Requests()
    requests.add(cancel(), 0.0, 30.0)
    assert requests.forget("a")
    assert not requests.forget("a")
    assert requests.next_at() == inf
    assert requests.due(1e9) == Due([], [])
    assert len(requests) == 0


def test_a_request_is_given_up_at_its_deadline_and_not_repeated_then() -> None:
    requests, command = Requests(), cancel()
    requests.add(command, 0.0, 0.5)
    assert requests.next_at() == 0.5
    assert requests.due(0.4) == Due([], [])
    assert requests.due(0.5) == Due([], [command])
    assert not requests.forget("a")


def test_a_deadline_between_two_repeats_is_kept() -> None:
    requests, command = Requests(), cancel()
    requests.add(command, 0.0, 5.0)
    assert requests.due(3.0).repeat == [command]
    assert requests.next_at() == 5.0
    assert requests.due(5.0).expired == [command]


def test_each_request_has_its_own_time() -> None:
    requests = Requests()
    requests.add(cancel("a"), 0.0, None)
    requests.add(cancel("b"), 0.5, None)
    requests.add(cancel("c"), 0.6, 0.1)
    due: list[tuple[float, list[Command], list[Command]]] = []
    for _ in range(3):
        at = requests.next_at()
        due.append((at, *requests.due(at)))
    assert due == [(0.7, [], [cancel("c")]), (3.0, [cancel("a")], []), (3.5, [cancel("b")], [])]
    assert requests.under_way() == [cancel("a"), cancel("b")]


def test_one_id_is_under_way_once_at_a_time() -> None:
    requests = Requests()
    requests.add(cancel(), 0.0, None)
    with pytest.raises(UsageError, match="'a' is under way"):
        requests.add(cancel(), 0.0, None)
    requests.forget("a")
    requests.add(cancel(), 5.0, None)
    assert requests.next_at() == 8.0
