import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from orchestrator import workflow
from orchestrator.client import Client, WorkflowHandle
from orchestrator.codec.payloads import DEFAULT
from orchestrator.errors import (
    DefinitionError,
    LogError,
    PayloadError,
    RecordRefused,
    Unavailable,
    UsageError,
    WorkflowAlreadyStarted,
    WorkflowFailure,
)
from orchestrator.protocol.commands import (
    AwaitResult,
    CancelWorkflow,
    Command,
    QueryWorkflow,
    SignalWorkflow,
    StartWorkflow,
    TerminateWorkflow,
)
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import (
    MAX_PAYLOAD_BYTES,
    Failure,
    FailureKind,
    IdReusePolicy,
    WorkflowStatus,
)
from orchestrator.protocol.views import (
    FailureGroups,
    History,
    MinuteCount,
    MinuteCounts,
    RunCounts,
    RunDescription,
    RunPage,
    RunRow,
    StuckPage,
    StuckReason,
    StuckRun,
)
from tests.unit.memory_log import MemoryLog


@workflow.defn(name="order")
class Order:
    @workflow.run
    async def run(self, order_id: str, cents: int = 0) -> dict[str, float]:
        return {order_id: cents}

    @workflow.signal
    async def approve(self, by: str) -> None: ...

    @workflow.query(name="state-of")
    def state(self) -> float:
        return 1.0


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def client(log: MemoryLog) -> Any:
    async with Client(log, identity="me") as client:
        yield client


def answering(log: MemoryLog, **fields: Any) -> None:
    """The engine answers each command, at once and with this."""

    def answer(command: Any) -> None:
        assert command.reply_to.partition == 3
        reply(log, command, **fields)

    log.on_send = answer


def reply(log: MemoryLog, command: Any, **fields: Any) -> None:
    """The engine answers one command."""
    log.reply(Reply(client_id=command.reply_to.client_id, request_id=command.request_id, **fields))


@pytest.mark.parametrize("how", [Order.run, Order, "order"], ids=["run", "class", "name"])
async def test_a_workflow_is_started_by_method_class_or_type(
    client: Client, log: MemoryLog, how: Any
) -> None:
    answering(log, run_id="run-1")
    handle = await client.start_workflow(
        how,
        "o-1",
        5,
        id="order-1",
        id_reuse_policy=IdReusePolicy.REJECT_DUPLICATE,
        run_timeout=1.5,
        memo={"shop": "Bern"},
        request_id="once",
    )
    assert (handle.id, handle.run_id) == ("order-1", "run-1")
    command = await log.command(StartWorkflow)
    assert replace(command, reply_to=None) == StartWorkflow(
        workflow_id="order-1",
        workflow_type="order",
        input=DEFAULT.to_payloads(["o-1", 5]),
        id_reuse_policy=IdReusePolicy.REJECT_DUPLICATE,
        run_timeout_ms=1_500,
        memo={"shop": DEFAULT.to_payload("Bern")},
        request_id="once",
        identity="me",
    )


async def test_a_client_speaks_for_somebody_else(client: Client, log: MemoryLog) -> None:
    answering(log, run_id="run-1", partition=2, offset=7)
    other = client.known_as("page")
    await other.get_workflow_handle("order-1").signal("approve")
    assert (await log.command(SignalWorkflow)).identity == "page"
    assert client.identity == "me"


async def test_an_id_that_is_taken_is_an_error_that_names_the_run(client: Client, log: MemoryLog) -> None:
    answering(log, rejection="workflow-already-started", message="taken", run_id="run-0")
    with pytest.raises(WorkflowAlreadyStarted) as caught:
        await client.start_workflow(Order.run, "o-1", id="order-1")
    assert caught.value.run_id == "run-0"


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (("o-1",), {"id": ""}, UsageError, "id is empty"),
        (("o-1",), {}, UsageError, "the workflow has no id; give each one an id of yours"),
        (("o-1",), {"id": "x" * 1_001}, UsageError, "1001 characters"),
        ((), {"id": "a"}, DefinitionError, "0 were given"),
        ((b"x" * MAX_PAYLOAD_BYTES, b"x"), {"id": "a"}, PayloadError, "bytes"),
        ((b"x" * MAX_PAYLOAD_BYTES,), {"id": "a", "memo": {"m": b"x"}}, PayloadError, "bytes"),
        ((object(),), {"id": "a"}, PayloadError, "object"),
        (("o-1",), {"id": "a", "request_id": 5}, UsageError, "request_id is 5; give text"),
    ],
)
async def test_what_cannot_be_started_is_refused_before_it_is_sent(
    client: Client, log: MemoryLog, args: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await client.start_workflow(Order.run, *args, **options)
    assert not log.commands


async def test_a_reason_is_text(client: Client, log: MemoryLog) -> None:
    handle = client.get_workflow_handle("a")
    for call in (handle.cancel, handle.terminate):
        with pytest.raises(UsageError, match="reason is 5; give text"):
            await call(5)  # type: ignore[arg-type]
    assert not log.commands


@pytest.mark.parametrize("what", [Order.approve, len, dict, ""])
async def test_what_is_no_workflow_is_refused(client: Client, what: Any) -> None:
    with pytest.raises(UsageError):
        await client.start_workflow(what, "o-1", id="a")


async def test_the_result_has_the_type_that_run_declares(client: Client, log: MemoryLog) -> None:
    answering(log, run_id="run-1", status="Completed", result=DEFAULT.to_payload({"o-1": 5}))
    result = await client.execute_workflow(Order.run, "o-1", 5, id="order-1")
    assert result == {"o-1": 5.0}
    assert isinstance(result["o-1"], float)
    assert (await log.command(StartWorkflow)).await_result, "one command asks for both"


async def test_a_start_that_was_answered_without_a_result_is_followed_by_a_question(
    client: Client, log: MemoryLog
) -> None:
    running = asyncio.create_task(client.execute_workflow(Order.run, "o-1", 5, id="order-1"))
    started = await log.command(StartWorkflow)
    reply(log, started, run_id="run-1")
    asked = await log.command(AwaitResult)
    assert asked.run_id == "run-1", "of the run that was started, no later one"
    reply(log, asked, run_id="run-1", status="Completed", result=DEFAULT.to_payload({"o-1": 5}))
    assert await running == {"o-1": 5.0}


async def test_a_failed_workflow_raises(client: Client, log: MemoryLog) -> None:
    answering(log, status="Failed", failure=Failure(kind=FailureKind.APPLICATION, message="sanctions hit"))
    with pytest.raises(WorkflowFailure, match="sanctions hit"):
        await client.get_workflow_handle("order-1").result()


async def test_signal_query_cancel_and_terminate(client: Client, log: MemoryLog) -> None:
    answering(log, run_id="run-1", result=DEFAULT.to_payload(3))
    handle = client.get_workflow_handle("order-1", "run-1")
    await handle.signal(Order.approve, "ann", request_id="once")
    signal = await log.command(SignalWorkflow)
    assert (signal.signal_name, signal.input) == ("approve", DEFAULT.to_payloads(["ann"]))
    assert (signal.workflow_id, signal.run_id, signal.request_id) == ("order-1", "run-1", "once")
    answer = await handle.query(Order.state)
    assert (answer, type(answer)) == (3.0, float)
    assert (await log.command(QueryWorkflow)).query_name == "state-of"
    assert await handle.query("__stack") == 3
    assert (await log.command(QueryWorkflow)).query_name == "__stack"
    await handle.cancel("changed my mind")
    assert (await log.command(CancelWorkflow)).reason == "changed my mind"
    await handle.terminate("stuck", {"why": 1})
    terminate = await log.command(TerminateWorkflow)
    assert (terminate.reason, terminate.details) == ("stuck", DEFAULT.to_payloads([{"why": 1}]))


@pytest.mark.parametrize("call", ["signal", "query"])
async def test_a_method_of_another_kind_is_refused(client: Client, call: str) -> None:
    handle = client.get_workflow_handle("order-1")
    with pytest.raises(DefinitionError, match=f"is not a {call}"):
        await getattr(handle, call)(Order.run, "x")
    wrong_number: tuple[Any, ...] = (Order.approve,) if call == "signal" else (Order.state, 1)
    with pytest.raises(DefinitionError, match="were given"):
        await getattr(handle, call)(*wrong_number)


# --- answers that are late or lost ---


async def cancel(client: Client, timeout: float | None = 30.0) -> None:  # noqa: ASYNC109
    await client.get_workflow_handle("order-1").cancel(timeout=timeout)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.client.requests.FIRST_REPEAT_S", 0.01)


@pytest.fixture
def reopening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.client.channel.REOPEN_S", 0.0)


@pytest.mark.usefixtures("hasty")
async def test_without_an_answer_the_same_command_is_repeated(client: Client, log: MemoryLog) -> None:
    asking = asyncio.create_task(cancel(client))
    first, second = await log.command(CancelWorkflow), await log.command(CancelWorkflow)
    assert first == second
    assert second.reply_to is not None
    answer = Reply(client_id=second.reply_to.client_id, request_id=second.request_id)
    log.reply(answer)
    await asking
    log.reply(answer)
    answering(log)
    await cancel(client)


async def test_no_answer_in_time_is_unavailable_and_names_the_request(client: Client, log: MemoryLog) -> None:
    with pytest.raises(Unavailable, match=r"CancelWorkflow .*the outcome is unknown"):
        await cancel(client, timeout=0.05)
    command = await log.command(CancelWorkflow)
    assert command.reply_to is not None
    log.reply(Reply(client_id=command.reply_to.client_id, request_id=command.request_id))
    answering(log)
    await cancel(client)


@pytest.mark.usefixtures("hasty")
async def test_a_send_without_acknowledgement_is_repeated(client: Client, log: MemoryLog) -> None:
    answering(log)
    log.fail_next("send", Unavailable("broker away"))
    await cancel(client)
    assert len(log.commands) == 1


async def test_a_command_that_the_log_refuses_is_an_error_at_once(client: Client, log: MemoryLog) -> None:
    log.fail_next("send", RecordRefused("too large"))
    with pytest.raises(RecordRefused, match="too large"):
        await cancel(client)


@pytest.mark.usefixtures("reopening")
@pytest.mark.parametrize("error", [Unavailable("gone"), LogError("gone")])
async def test_after_a_lost_stream_everything_under_way_is_asked_again(
    client: Client, log: MemoryLog, error: Exception
) -> None:
    asking = asyncio.create_task(cancel(client))
    first = await log.command(CancelWorkflow)
    answering(log)
    log.reply_streams[0].fail(error)
    await asking
    assert (await log.command(CancelWorkflow)).request_id == first.request_id
    assert len(log.reply_streams) == 2
    assert log.reply_streams[0].closed


@pytest.mark.usefixtures("reopening")
async def test_nothing_is_sent_before_the_stream_of_replies_is_open(client: Client, log: MemoryLog) -> None:
    answering(log)
    log.fail_next("open_replies", Unavailable("not yet"))
    asking = asyncio.create_task(cancel(client))
    await asyncio.sleep(0)
    assert not log.commands
    await asking
    assert len(log.commands) == 1


async def test_a_fault_of_ours_in_the_stream_ends_all_calls(client: Client, log: MemoryLog) -> None:
    asking = asyncio.create_task(cancel(client))
    await log.command(CancelWorkflow)
    log.reply_streams[0].fail(ZeroDivisionError("bug"))
    with pytest.raises(ZeroDivisionError):
        await asking


async def test_a_closed_client_answers_nobody(log: MemoryLog) -> None:
    client = Client(log)
    asking = asyncio.create_task(cancel(client))
    await log.command(CancelWorkflow)
    await client.close()
    with pytest.raises(Unavailable, match="closed"):
        await asking
    with pytest.raises(UsageError, match="closed"):
        await cancel(client)
    assert not log.closed, "it is the caller's"


async def test_a_call_that_is_cancelled_is_not_repeated(client: Client, log: MemoryLog) -> None:
    asking = asyncio.create_task(cancel(client))
    command = await log.command(CancelWorkflow)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert command.reply_to is not None
    log.reply(Reply(client_id=command.reply_to.client_id, request_id=command.request_id))
    answering(log)
    await cancel(client)


async def test_many_calls_at_a_time_each_get_their_own_answer(client: Client, log: MemoryLog) -> None:
    waiting: list[Command] = []

    def answer_backwards(command: Command) -> None:
        waiting.append(command)
        if len(waiting) == 50:
            for asked in reversed(waiting):
                assert isinstance(asked, StartWorkflow)
                assert asked.reply_to is not None
                run_id = f"run of {asked.workflow_id}"
                log.reply(
                    Reply(client_id=asked.reply_to.client_id, request_id=asked.request_id, run_id=run_id)
                )

    log.on_send = answer_backwards
    starts = [client.start_workflow("order", id=f"order-{n}") for n in range(50)]
    handles: list[WorkflowHandle[Any]] = await asyncio.gather(*starts)
    assert all(handle.run_id == f"run of {handle.id}" for handle in handles)


# --- reads ---


class Pages:
    """A reader over 250 runs, and one run of 2,500 turns."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.bookmarks: list[str] = []

    def after(self, bookmark: str) -> "Pages":
        self.bookmarks.append(bookmark)
        return self

    async def list_runs(self, query: str = "", *, limit: int = 100, page: str = "") -> RunPage:
        self.queries.append(query)
        first = int(page or 0)
        last = min(first + limit, 250)
        rows = tuple(
            RunRow(
                workflow_id=f"o-{n}",
                run_id="r",
                workflow_type="order",
                status=WorkflowStatus.RUNNING,
                start_time_ms=n,
            )
            for n in range(first, last)
        )
        return RunPage(rows=rows, next_page=str(last) if last < 250 else "")

    async def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        return RunDescription(row=(await self.list_runs(workflow_id)).rows[0])

    async def count_runs(self, query: str = "") -> RunCounts:
        self.queries.append(query)
        return RunCounts(runs=250, counts=())

    async def minutes(self) -> MinuteCounts:
        return MinuteCounts(minutes=(MinuteCount(time_ms=60_000, started=7),))

    async def failures(self, *, limit: int = 100) -> FailureGroups:
        return FailureGroups(groups=(), more=limit)

    async def stuck(
        self, *, attempts: int = 5, waiting_ms: int = 60_000, limit: int = 100, page: str = ""
    ) -> StuckPage:
        row = StuckRun(
            workflow_id=f"{attempts}-{waiting_ms}-{page}",
            run_id="r",
            workflow_type="order",
            reasons=(StuckReason.WAITING,),
            since_time_ms=0,
        )
        return StuckPage(rows=(row,), next_page="" if page else "more")

    async def history(
        self, workflow_id: str, run_id: str = "", *, after_turn: int = 0, limit: int = 10_000
    ) -> History:
        turns = tuple(
            Turn(
                epoch=1,
                seq=n,
                marks=Marks(),
                sent_through=0,
                time_ms=0,
                workflow_id=workflow_id,
                run_id="r",
                turn=n,
                first_event_id=n,
                activation=Activation.NONE,
                events=(),
            )
            for n in range(after_turn + 1, min(after_turn + limit, 2_500) + 1)
        )
        return History(workflow_id=workflow_id, run_id="r", workflow_type="order", turns=turns)


async def test_lists_and_histories_are_read_page_by_page(log: MemoryLog) -> None:
    pages = Pages()
    client = Client(log, reader=pages)
    rows = [row async for row in client.list_workflows("Attempt > 1", workflow_type="order", id_prefix="o-")]
    assert set(pages.queries) == {'(Attempt > 1) AND WorkflowType = "order" AND WorkflowId STARTS_WITH "o-"'}
    assert [row.workflow_id for row in rows] == [f"o-{n}" for n in range(250)]
    assert len([row async for row in client.list_workflows(limit=120)]) == 120
    history = await client.history("order-1")
    assert [turn.turn for turn in history.turns] == list(range(1, 2_501))
    assert (await client.get_workflow_handle("o").describe()).row.workflow_id == "o-0"
    assert (await client.count_workflows("Attempt > 2")).runs == 250
    assert pages.queries[-1] == "Attempt > 2"
    assert (await client.count_by_minute()).minutes[0].started == 7
    assert (await client.list_failures(limit=7)).more == 7
    found = [row.workflow_id async for row in client.list_stuck(attempts=3, waiting=1.5)]
    assert found == ["3-1500-", "3-1500-more"]


async def test_reads_wait_for_what_this_client_was_told_is_done(log: MemoryLog) -> None:
    pages = Pages()
    client = Client(log, reader=pages)
    await client.count_workflows()
    assert pages.bookmarks == [], "nothing was done yet"

    places = iter([(3, 12), (1, 5), (3, 9)])

    def answer(command: Command) -> None:
        partition, offset = next(places)
        assert command.reply_to is not None
        log.reply(
            Reply(
                client_id=command.reply_to.client_id,
                request_id=command.request_id,
                run_id="r",
                partition=partition,
                offset=offset,
            )
        )

    log.on_send = answer
    handle = await client.start_workflow("order", id="o")
    assert handle.bookmark == "3-12"
    await handle.signal("go")
    assert handle.bookmark == "1-5"
    await handle.cancel()
    await handle.describe()
    await client.history("o")
    assert pages.bookmarks == ["1-5,3-12"] * 2


async def test_without_a_reader_the_error_says_how_to_give_one(client: Client) -> None:
    with pytest.raises(UsageError, match="reader"):
        await client.history("order-1")
    with pytest.raises(UsageError, match="reader"):
        await client.get_workflow_handle("order-1").describe()
