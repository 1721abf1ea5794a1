"""Fixtures for tests that need a broker; loaded for all tests by `tests/conftest.py`. Mark them ``kafka``."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kafka.broker import Broker
from tests.kafka.jars import NoBroker, classpath, java
from tests.kafka.proxy import Proxy
from tests.kafka.shared import Shared, shared_broker


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """The broker that all tests share, in all test processes. Use :func:`namespace`."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if hasattr(request.config, "workerinput") else own) / "kafka"
    stack = ExitStack()
    # Not at the end of the last test: it would wait, by its own time, for those of other processes.
    request.config.add_cleanup(stack.close)
    try:
        return stack.enter_context(shared_broker(folder))
    except NoBroker as error:
        pytest.skip(f"no broker: {error}")


@pytest.fixture
def namespace() -> str:
    """A namespace that nothing else uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def proxy(kafka: Shared) -> Iterator[Proxy]:
    """A proxy in front of the broker that all tests share; only who connects to it is concerned."""
    for listener in kafka.proxied:
        try:
            proxy = Proxy(listener)
        except OSError:  # another test process has it
            continue
        with proxy:
            yield proxy
        return
    pytest.skip("no listener for a proxy: only a broker from the jars has some")


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Makes brokers of a test's own, running, which it may kill, pause and start again.

    The arguments are those of :class:`Broker`, without the folder.
    """
    try:
        java(), classpath()
    except NoBroker as error:
        pytest.skip(f"no broker of its own: {error}")
    with ExitStack() as stack:

        def make(*, session_ms: int = 1_500, proxied: int = 0) -> Broker:
            broker = Broker(
                tmp_path / f"broker-{uuid.uuid4().hex[:6]}", session_ms=session_ms, proxied=proxied
            )
            stack.callback(broker.kill)
            broker.start()
            return broker

        yield make
