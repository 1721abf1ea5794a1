"""wait, as_completed and TaskGroup, in an order that replay repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from workflow_kit import Run, cancel, completed, failed, fired

from orchestrator import workflow
from orchestrator.workflow import determinism
from orchestrator.workflow.ordered import OrderedSet, in_order


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    determinism.install()
    yield
    determinism.uninstall()


async def activity(name: str) -> str:
    return str(await workflow.execute_activity(name, start_to_close_timeout=60))


@workflow.defn
class Waits:
    @workflow.run
    async def run(self, width: int) -> list[str]:
        waiting: Any = {asyncio.create_task(activity(f"a{n}"), name=f"t{n}") for n in range(width)}
        order = []
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            order += [task.get_name() for task in done]
            order.append(f"{len(waiting)} left")
        return order


def test_wait_answers_in_the_order_of_creation_even_for_a_set() -> None:
    run = Run(Waits, (20,))
    run.start()
    run.tell(*[completed(n) for n in range(10, 0, -1)])
    run.tell(*[completed(n) for n in range(11, 21)])
    names = [f"t{n}" for n in range(20)]
    assert run.result == [*names[:10], "10 left", *names[10:], "0 left"]
    run.replay()


@workflow.defn
class AsCompleted:
    @workflow.run
    async def run(self, width: int, timeout_s: float | None) -> list[str]:
        order = []
        try:
            for next_one in asyncio.as_completed(
                [activity(f"a{n}") for n in range(width)], timeout=timeout_s
            ):
                order.append(await next_one)
        except TimeoutError:
            order.append("late")
        return order


def test_as_completed_yields_in_the_order_of_completion() -> None:
    run = Run(AsCompleted, (3, None))
    assert run.start() == ["schedule 1 a0", "schedule 2 a1", "schedule 3 a2"]
    run.tell(completed(3, "third"), completed(1, "first"))
    run.tell(completed(2, "second"))
    assert run.result == ["third", "first", "second"]
    run.replay()


def test_as_completed_times_out() -> None:
    run = Run(AsCompleted, (2, 5))
    assert run.start() == ["start timer 1 5000", "schedule 1 a0", "schedule 2 a1"]
    run.tell(completed(1, "first"))
    run.tell(fired(1))
    assert run.result == ["first", "late"]
    run = Run(AsCompleted, (2, 5))
    run.start()
    assert run.tell(completed(1, "a"), completed(2, "b")) == ["cancel timer 1", "complete"]


@workflow.defn
class AsyncFor:
    @workflow.run
    async def run(self) -> list[str]:
        handles = [workflow.start_activity(f"a{n}", start_to_close_timeout=1) for n in range(2)]
        completed_in_order: Any = asyncio.as_completed(handles)
        return [f"a{handles.index(handle)}" async for handle in completed_in_order]


def test_as_completed_async_for_yields_the_futures() -> None:
    run = Run(AsyncFor)
    run.start()
    run.tell(completed(2), completed(1))
    assert run.result == ["a1", "a0"]


@workflow.defn
class Group:
    @workflow.run
    async def run(self, width: int) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(width):
                    group.create_task(activity(f"a{number}"))
        except ExceptionGroup as error:
            return f"{len(error.exceptions)} failed"
        return "all done"


def test_task_group_cancels_siblings_in_order() -> None:
    run = Run(Group, (30,))
    run.start()
    expected = [f"cancel activity {n}" for n in range(1, 31) if n != 7]
    assert run.tell(failed(7)) == [*expected, "complete"]
    assert run.result == "1 failed"
    run.replay()
    run = Run(Group, (30,))
    run.start()
    assert run.tell(cancel()) == [*[f"cancel activity {n}" for n in range(1, 31)], "canceled"]


def test_task_group_completes() -> None:
    run = Run(Group, (2,))
    run.start()
    run.tell(completed(1), completed(2))
    assert run.result == "all done"


async def test_outside_of_workflows_the_originals_answer() -> None:
    done, pending = await asyncio.wait([asyncio.create_task(asyncio.sleep(0))])
    assert isinstance(done, set)
    assert not pending
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    assert [await one for one in asyncio.as_completed([asyncio.sleep(0, "x")])] == ["x"]


def test_ordered_set() -> None:
    some = OrderedSet([3, 1, 3, 2])
    assert list(some) == [3, 1, 2]
    some.discard(9)
    some.discard(3)
    some.add(3)
    assert list(some) == [1, 2, 3]
    assert list(some - {2}) == [1, 3]
    assert 2 in some
    assert repr(some) == "OrderedSet([1, 2, 3])"
    assert in_order([2, 1, 2]) == [2, 1]
