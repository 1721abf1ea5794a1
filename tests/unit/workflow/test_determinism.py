"""Plain Python in and out of workflows."""

from __future__ import annotations

import asyncio
import builtins
import datetime
import os
import random
import secrets
import socket
import subprocess
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from workflow_kit import START_MS, Run, fired

from orchestrator import workflow
from orchestrator.workflow import determinism
from orchestrator.workflow.instance import WorkflowCodeError

NOW_S = START_MS / 1_000 + 1


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    determinism.install()
    yield
    determinism.uninstall()


@workflow.defn
class Calls:
    """Calls whatever the test says; the answer is looked at in the same process."""

    call: Callable[[], Any]
    answer: Any

    @workflow.run
    async def run(self) -> None:
        Calls.answer = Calls.call()
        await asyncio.sleep(0)


def inside(call: Callable[[], Any], run_id: str = "run-1") -> Any:
    Calls.call = staticmethod(call)
    Run(Calls, run_id=run_id).start()
    return Calls.answer


CLOCKS: dict[str, tuple[Callable[[], Any], Any]] = {
    "time": (lambda: time.time(), NOW_S),
    "time_ns": (lambda: time.time_ns(), (START_MS + 1_000) * 1_000_000),
    "monotonic": (lambda: time.monotonic(), NOW_S),
    "perf_counter": (lambda: time.perf_counter(), NOW_S),
    "gmtime": (lambda: time.gmtime()[:6], time.gmtime(NOW_S)[:6]),
    "gmtime with seconds": (lambda: time.gmtime(0)[0], 1970),
    "localtime": (lambda: time.localtime()[:6], time.localtime(NOW_S)[:6]),
    "ctime": (lambda: time.ctime(), time.ctime(NOW_S)),
    "asctime": (lambda: time.asctime(), time.asctime(time.localtime(NOW_S))),
    "strftime": (lambda: time.strftime("%Y-%m-%d"), time.strftime("%Y-%m-%d", time.localtime(NOW_S))),
    "datetime.now": (lambda: datetime.datetime.now(), datetime.datetime.fromtimestamp(NOW_S)),
    "datetime.now utc": (
        lambda: datetime.datetime.now(datetime.UTC),
        datetime.datetime.fromtimestamp(NOW_S, datetime.UTC),
    ),
    "datetime.today": (lambda: datetime.datetime.today(), datetime.datetime.fromtimestamp(NOW_S)),
    "date.today": (lambda: datetime.date.today(), datetime.date.fromtimestamp(NOW_S)),
    "loop.time": (lambda: asyncio.get_running_loop().time(), NOW_S),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_clocks_stand_still_at_the_time_of_the_turn(name: str) -> None:
    call, expected = CLOCKS[name]
    assert inside(call) == expected


@pytest.mark.parametrize(
    "name", [name for name in CLOCKS if name not in ("gmtime with seconds", "loop.time")]
)
def test_clocks_go_on_outside(name: str) -> None:
    call, frozen = CLOCKS[name]
    assert call() != frozen


def test_utcnow_is_naive() -> None:
    answer = inside(lambda: datetime.datetime.utcnow())
    assert answer == datetime.datetime.fromtimestamp(NOW_S, datetime.UTC).replace(tzinfo=None)


def test_datetime_stays_the_type_that_it_is() -> None:
    class Mine(datetime.datetime):
        pass

    assert type(inside(lambda: datetime.datetime.now())) is datetime.datetime
    assert type(inside(lambda: Mine.now())) is Mine
    assert type(Mine.now()) is Mine
    assert isinstance(datetime.datetime.now(tz=datetime.UTC), datetime.datetime)


RANDOM: dict[str, Callable[[], Any]] = {
    "random": lambda: random.random(),
    "randint": lambda: random.randint(0, 10**9),
    "choice": lambda: random.choice(range(10**9)),
    "sample": lambda: random.sample(range(10**6), 3),
    "gauss": lambda: random.gauss(0, 1),
    "Random()": lambda: random.Random().random(),
    "uuid4": lambda: uuid.uuid4(),
    "workflow.uuid4": lambda: workflow.uuid4(),
    "workflow.random": lambda: workflow.random().getrandbits(64),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_follow_from_the_run_id(name: str) -> None:
    call = RANDOM[name]
    first = inside(call)
    assert inside(call) == first
    assert inside(call, run_id="run-2") != first
    if not name.startswith("workflow"):
        assert call() != first
        assert call() != call()


def test_seeded_generators_are_the_users_own() -> None:
    assert inside(lambda: random.Random(7).random()) == random.Random(7).random()


def test_uuid4_is_a_valid_uuid4() -> None:
    assert inside(uuid.uuid4).version == 4


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "open": (lambda: open(__file__).close(), "do it in an activity"),
    "path": (lambda: __import__("pathlib").Path(__file__).read_text(), "do it in an activity"),
    "input": (lambda: input(), "do it in an activity"),
    "sleep": (lambda: time.sleep(1), "workflow.sleep"),
    "thread": (lambda: threading.Thread(target=print).start(), "an activity"),
    "socket": (lambda: socket.socket(), "do it in an activity"),
    "getaddrinfo": (lambda: socket.getaddrinfo("localhost", 1), "do it in an activity"),
    "subprocess": (lambda: subprocess.run(["true"], check=False), "do it in an activity"),
    "system": (lambda: os.system("true"), "do it in an activity"),
    "urandom": (lambda: os.urandom(1), r"workflow\.random"),
    "secrets": (lambda: secrets.token_hex(), r"workflow\.random"),
    "SystemRandom": (lambda: random.SystemRandom().random(), r"workflow\.random"),
    "uuid1": (lambda: uuid.uuid1(), r"workflow\.uuid4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replayed_is_refused_with_what_to_use(name: str) -> None:
    call, instead = REFUSED[name]
    with pytest.raises(WorkflowCodeError, match=f"NotDeterministic.*{instead}"):
        inside(call)


def test_outside_everything_works() -> None:
    with open(__file__) as file:
        assert file.readline()
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert len(os.urandom(3)) == 3
    assert subprocess.run(["true"], check=True).returncode == 0
    time.sleep(0)


def test_loops_of_asyncio_read_the_clock_at_once() -> None:
    loop = asyncio.new_event_loop()
    before, now, after = time.monotonic(), loop.time(), time.monotonic()
    loop.close()
    assert before <= now <= after
    assert isinstance(asyncio.BaseEventLoop.time, types.BuiltinFunctionType)


def test_install_is_idempotent_and_uninstall_restores() -> None:
    wrapped = time.time
    determinism.install()
    assert time.time is wrapped
    determinism.uninstall()
    determinism.uninstall()
    assert isinstance(time.time, types.BuiltinFunctionType)
    assert isinstance(builtins.open, types.BuiltinFunctionType)
    assert isinstance(vars(datetime.datetime)["now"], types.ClassMethodDescriptorType)
    assert isinstance(asyncio.BaseEventLoop.time, types.FunctionType)
    determinism.install()
    assert not isinstance(time.time, types.BuiltinFunctionType)


def test_wrappers_do_not_bind_as_methods_where_builtins_would_not() -> None:
    class Stopwatch:
        clock = time.perf_counter

    assert Stopwatch().clock() > 0  # type: ignore[call-arg,misc]


def test_adopt_replaces_names_that_were_imported_before() -> None:
    determinism.uninstall()
    module = types.ModuleType("users_module")
    source = (
        "from time import time\nfrom random import random\nfrom uuid import uuid4\nfrom asyncio import wait"
    )
    exec(source, vars(module))
    original = module.time
    determinism.adopt(module)  # not installed: nothing happens
    assert module.time is original
    determinism.install()
    determinism.adopt(module)
    assert inside(lambda: module.time()) == NOW_S
    assert inside(lambda: module.random()) == inside(random.random)
    assert inside(lambda: module.uuid4()) == inside(workflow.uuid4)
    assert module.wait is asyncio.wait
    determinism.uninstall()
    assert module.time is original


@workflow.defn
class Logs:
    @workflow.run
    async def run(self) -> None:
        workflow.logger.info("50%% of %s", "it")
        workflow.logger.warning("100% plain")
        await asyncio.sleep(1)


def test_the_logger_names_the_run_and_is_silent_on_replay(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run = Run(Logs)
    run.start()
    run.tell(fired(1))
    first, second = caplog.records
    assert first.getMessage() == "50% of it"
    assert second.getMessage() == "100% plain"
    of = ("workflow_id", "run_id", "workflow_type")
    assert [vars(first)[name] for name in of] == ["wf", "run-1", "Logs"]
    assert first.funcName == "run"
    assert abs(first.created - time.time()) < 60  # the real time: records are no part of the workflow
    caplog.clear()
    run.replay()
    assert not caplog.records
    workflow.logger.info("outside")
    assert caplog.records[0].getMessage() == "outside"
