"""``python -m bench kafka [CASE …]``: the cases on a broker, roles as processes, the yardstick beside them.

A broker, a coordinator, a worker and a client share this machine. Each case has a process of its own, which
is the client, and a namespace of its own. ``*_us`` are microseconds of CPU per workflow (or activity), by
role: where other programs run too, they and their ratios say more than rates.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.cases import Figures, concurrent, fan_out, sequential
from bench.outages import OPEN_RUNS, restart, takeover
from bench.roles import PARTITIONS, Engine, Role, engine
from bench.workflows import Begun, FiveActivities, OneActivity
from bench.yardstick import Bare
from orchestrator import Client
from orchestrator.cli.process import settle_collector
from orchestrator.log.topics import HISTORY
from orchestrator.log.wire import PREFIX
from tests.kafka.broker import Broker, BrokerFailed
from tests.kafka.jars import NoBroker
from tests.kafka.raw import RawLog

WARM_UP = 2_000
"""Workflows before those that are measured: connections, caches, and the compilers of Java."""

LOOK_S = 0.05
"""Between two measurements of how long a view is behind."""

POLL_S = 0.005
"""Between two looks at where it stands, within one."""


async def _concurrent(engine: Engine, client: Client, workflow: Any, count: int, in_flight: int) -> Figures:
    await concurrent(client, workflow, min(WARM_UP, count), in_flight, prefix="warm")
    meter = engine.meter()
    figures = await concurrent(client, workflow, count, in_flight)
    return _figures_of(figures, meter.per(count + in_flight))


def _figures_of(figures: Figures, by_role: Figures) -> Figures:
    """The client's CPU is among that of the roles already."""
    return {**{name: value for name, value in figures.items() if name != "cpu_us"}, **by_role}


async def _one(engine: Engine, client: Client) -> Figures:
    await concurrent(client, OneActivity, WARM_UP, 64, prefix="warm")
    meter = engine.meter()
    return {**await sequential(client, OneActivity, 1_000), **meter.per(1_000)}


async def _fan_out(engine: Engine, client: Client, count: int) -> Figures:
    await concurrent(client, OneActivity, WARM_UP, 64, prefix="warm")
    meter = engine.meter()
    return {**await fan_out(client, count), **meter.per(count)}


async def _first_activity(engine: Engine, client: Client, per_s: int, seconds: int) -> Figures:
    """At a steady rate: from the moment when a workflow is to be started to the begin of its activity."""
    await concurrent(client, OneActivity, WARM_UP, 64, prefix="warm")
    loop = asyncio.get_running_loop()
    behind_s = time.time() - loop.time()

    async def start(n: int, at: float) -> float:
        await asyncio.sleep(at - loop.time())
        begun: float = await client.execute_workflow(Begun.run, n, id=f"begun-{n}")
        return begun - at - behind_s

    first, count = loop.time() + 0.1, per_s * seconds
    took = sorted(await asyncio.gather(*(start(n, first + n / per_s) for n in range(count))))
    return {"p50_ms": took[count // 2] * 1e3, "p99_ms": took[count * 99 // 100] * 1e3}


async def _view(engine: Engine, client: Client, count: int, in_flight: int) -> Figures:
    """How far a view is behind while it shares the machine with a full load, and what it costs."""
    address = await engine.view()
    raw = RawLog(engine.settings.bootstrap, engine.settings.namespace)
    await concurrent(client, OneActivity, WARM_UP, in_flight, prefix="warm")
    lags_ms: list[float] = []

    async def behind(http: httpx.AsyncClient, ends: list[int]) -> int:
        """How many records the view has yet to show of those before ``ends``."""
        status = (await http.get(f"{address}{PREFIX}/status")).json()
        return sum(max(0, ends[one["partition"]] - one["offset"]) for one in status["partitions"])

    async def ends() -> list[int]:
        return await asyncio.to_thread(lambda: [raw.end(HISTORY, number) for number in range(PARTITIONS)])

    async def caught_up(http: httpx.AsyncClient) -> float:
        """How long it takes until the view shows all that stands on the log now, in seconds."""
        found, begin = await ends(), time.perf_counter()
        while await behind(http, found):  # noqa: ASYNC110 (another process is waited for)
            await asyncio.sleep(POLL_S)
        return time.perf_counter() - begin

    async def watch(http: httpx.AsyncClient) -> None:
        while True:
            lags_ms.append(await caught_up(http) * 1e3)
            await asyncio.sleep(LOOK_S)

    async with httpx.AsyncClient(timeout=30) as http:
        await caught_up(http)
        meter, watching = engine.meter(), asyncio.create_task(watch(http))
        figures = await concurrent(client, OneActivity, count, in_flight)
        watching.cancel()
        after_s = await caught_up(http)
    raw.close()
    lags_ms.sort()
    lag = {"lag_p50_ms": lags_ms[len(lags_ms) // 2], "lag_p99_ms": lags_ms[len(lags_ms) * 99 // 100]}
    return _figures_of({**figures, **lag, "caught_up_s": after_s}, meter.per(count + in_flight))


Case = Callable[[Engine, Client], Awaitable[Figures]]

CASES: dict[str, tuple[str, Case]] = {
    "one": ("1 in flight", _one),
    "64": ("64 in flight", lambda e, c: _concurrent(e, c, OneActivity, 5_000, 64)),
    "500": ("500 in flight", lambda e, c: _concurrent(e, c, OneActivity, 10_000, 500)),
    "five": (
        "five activities in sequence, 64 in flight",
        lambda e, c: _concurrent(e, c, FiveActivities, 2_000, 64),
    ),
    "fan-1000": ("fan-out of 1,000", lambda e, c: _fan_out(e, c, 1_000)),
    "fan-10000": ("fan-out of 10,000", lambda e, c: _fan_out(e, c, 10_000)),
    "start": ("100 starts/s, until the activity begins", lambda e, c: _first_activity(e, c, 100, 10)),
    "restart": (f"restart with {OPEN_RUNS:,} open runs", restart),
    "takeover": ("one of two coordinators ends, 64 in flight", takeover),
    "view": ("500 in flight, with a view", lambda e, c: _view(e, c, 10_000, 500)),
}

YARDSTICK = {"one": (1_000, 1), "64": (10_000, 64), "500": (20_000, 500)}
"""Of the cases that have one: how many workflows, and how many at a time."""


async def bare(name: str, bootstrap: str, broker_pid: int, folder: Path) -> Figures:
    """The yardstick of a case."""
    count, in_flight = YARDSTICK[name]
    made = Engine(bootstrap, broker_pid, folder)
    async with made:
        for role in ("loop", "worker"):
            made.roles[role] = Role(role, folder, "bench.yardstick", role, bootstrap, made.settings.namespace)
            await made.roles[role].start()
        client = Bare(bootstrap, made.settings.namespace)
        client.run(WARM_UP, max(64, in_flight))
        meter, begin = made.meter(), time.perf_counter()
        took = client.run(count, in_flight)
        wall_s = time.perf_counter() - begin
        return {
            "per_s": count / wall_s,
            "p50_ms": took[count // 2] * 1e3,
            "p99_ms": took[count * 99 // 100] * 1e3,
            **meter.per(count),
        }


async def run(name: str, bootstrap: str, broker_pid: int, folder: Path) -> Figures:
    """Run a case."""
    _, case = CASES[name]
    async with engine(bootstrap, broker_pid, folder) as (made, client):
        settle_collector()
        return await case(made, client)


RUNNERS = {"engine": run, "bare": bare}


def child(arguments: Sequence[str]) -> None:
    """One case, in this process; prints its figures."""
    runner, name, bootstrap, broker_pid, folder = arguments
    figures = asyncio.run(RUNNERS[runner](name, bootstrap, int(broker_pid), Path(folder)))
    print(json.dumps(figures))


def _figures(runner: str, name: str, broker: Broker, folder: Path) -> Figures:
    """Of a case that has a process of its own."""
    place = folder / f"{name}-{runner}"
    arguments = (runner, name, broker.bootstrap, str(broker.pid), str(place))
    ended = subprocess.run(
        [sys.executable, "-m", "bench", "kafka", "--in-process", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    found: Figures = json.loads(ended.stdout.splitlines()[-1])
    return found


def _print(title: str, figures: Figures) -> None:
    words = "   ".join(f"{key} {value:,.{2 if value < 10 else 1}f}" for key, value in figures.items())
    print(f"{title:<45} {words}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the named cases, or all, each after its yardstick."""
    if arguments[:1] == ["--in-process"]:
        child(arguments[1:])
        return 0
    names = arguments or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"unknown case {unknown[0]!r}; known: {', '.join(CASES)}", file=sys.stderr)
        return 2
    return _measure(names)


def _measure(names: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as folder:
        broker = Broker(Path(folder) / "broker", compiler="-XX:+TieredCompilation")
        try:
            broker.start()
            for name in YARDSTICK:  # Java compiles what is used often
                _figures("bare", name, broker, Path(folder) / "warm-up")
            for name in names:
                _compare(name, broker, Path(folder))
        except (NoBroker, BrokerFailed) as error:
            print(error, file=sys.stderr)
            return 1
        except subprocess.CalledProcessError:  # it has said why
            return 1
        finally:
            broker.stop()
    return 0


def _compare(name: str, broker: Broker, folder: Path) -> None:
    engines = _figures("engine", name, broker, folder)
    _print(CASES[name][0], engines)
    if name in YARDSTICK:
        bares = _figures("bare", name, broker, folder)
        _print("  without an engine", bares)
        _print("  ratio", {key: engines[key] / bares[key] for key in ("per_s", "p50_ms", "all_us")})
