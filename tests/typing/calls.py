"""Calls as users write them. Never run: ``test_calls.py`` compares what mypy says with the comments.

``# is: T`` is the type that mypy reveals in that line, ``# no: code`` is an error that it must have; no other
line may have one.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import reveal_type

from orchestrator import activity, workflow
from orchestrator.client import Client


@activity.defn
async def none() -> None: ...


@activity.defn
async def one(a: int) -> str:
    return str(a)


@activity.defn
async def two(a: int, b: str) -> float:
    return a + len(b)


@activity.defn(name="three")
def three(a: int, b: str, c: bool) -> list[int]:
    return [a, len(b), c]


@activity.defn
def four(a: int, b: str, c: bool, d: dict[str, int]) -> bytes:
    return bytes(a + len(b) + c + len(d))


@workflow.defn
class Order:
    @workflow.run
    async def run(self, order_id: str, cents: int) -> float:
        execute = workflow.execute_activity
        reveal_type(await execute(none, start_to_close_timeout=1))  # is: None
        reveal_type(await execute(one, 1, start_to_close_timeout=1))  # is: str
        reveal_type(await execute(two, 1, "b", start_to_close_timeout=1))  # is: float
        reveal_type(await execute(three, 1, "b", True, start_to_close_timeout=1))  # is: list[int]
        reveal_type(await execute(four, 1, "", True, {}, start_to_close_timeout=1))  # is: bytes
        reveal_type(await execute("name", 1, "x", start_to_close_timeout=1))  # is: Any
        reveal_type(await execute("name", result_type=int, start_to_close_timeout=1))  # is: int

        started = workflow.start_activity(two, 1, "b", start_to_close_timeout=timedelta(hours=1))
        reveal_type(started)  # is: ActivityHandle[float]
        reveal_type(await started)  # is: float
        reveal_type(await asyncio.gather(started, workflow.start_activity("one", 1)))  # is: tuple[float, Any]

        await execute(one, "1", start_to_close_timeout=1)  # no: arg-type
        await execute(one, start_to_close_timeout=1)  # no: arg-type
        await execute(two, "b", 1, start_to_close_timeout=1)  # no: arg-type
        await execute(none, 1, start_to_close_timeout=1)  # no: arg-type
        await execute(one, 1, start_to_close_timeout="1 s")  # no: call-overload
        await execute(one, 1, start_to_finish_timeout=1)  # no: call-overload
        reveal_type(workflow.publish("orders", {"a": 1}, key=b"k", headers={"h": "1"}))  # is: None
        workflow.publish("orders", 1, key=1)  # no: arg-type
        workflow.publish("orders", 1, headers={"h": 1})  # no: dict-item
        workflow.publish(b"orders", 1)  # no: arg-type
        await workflow.sleep("1 s")  # no: arg-type
        await workflow.wait_condition(lambda: self.done(1))  # no: call-arg
        return 0.0

    @workflow.signal
    async def approve(self, by: str, at: float) -> None: ...

    @workflow.signal(name="stop")
    def stopped(self) -> None: ...

    @workflow.query
    def progress(self, part: str) -> tuple[int, int]:
        return len(part), 1

    @workflow.query(name="finished")
    def done(self) -> bool:
        return True


async def client(client: Client) -> None:
    handle = await client.start_workflow(Order.run, "o-17", 100, id="o-17", run_timeout=timedelta(days=1))
    reveal_type(handle)  # is: WorkflowHandle[float]
    reveal_type(await handle.result())  # is: float
    reveal_type(await client.execute_workflow(Order.run, "o-17", 100, id="o-17"))  # is: float
    reveal_type(await client.start_workflow("Order", "o-17", id="o-17"))  # is: WorkflowHandle[Any]
    reveal_type(client.get_workflow_handle("o-17", result_type=float))  # is: WorkflowHandle[float]
    reveal_type(await handle.query(Order.progress, "a"))  # is: tuple[int, int]
    reveal_type(await handle.query(Order.done))  # is: bool
    reveal_type(await handle.query("progress", "a"))  # is: Any
    await handle.signal(Order.approve, "me", 1.0)
    await handle.signal(Order.stopped)
    await handle.signal("approve", "me", 1.0)

    await client.start_workflow(Order.run, 17, 100, id="o-17")  # no: arg-type
    await client.start_workflow(Order.run, "o-17", id="o-17")  # no: arg-type
    await client.execute_workflow(Order.run, "o-17", "100", id="o-17")  # no: arg-type
    await client.start_workflow(Order.run, "o-17", 100)  # no: call-overload
    await handle.signal(Order.approve, 1.0, "me")  # no: arg-type
    await handle.signal(Order.approve)  # no: arg-type
    await handle.signal(Order.stopped, 1)  # no: arg-type
    await handle.query(Order.progress, 1)  # no: arg-type
    await handle.query(Order.progress)  # no: arg-type


@workflow.defn
class WithDefaults:
    @workflow.run
    async def run(self, order_id: str, cents: int = 0) -> int:
        return cents


async def defaults(client: Client) -> None:
    await client.execute_workflow(WithDefaults.run, "a", 1, id="a")
    await client.execute_workflow(WithDefaults.run, "a", id="a")


@workflow.defn(dynamic_signals=1)  # no: call-overload
class Wrong: ...
