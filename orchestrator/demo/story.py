"""The demonstration: business processes, a SIGKILL in the middle of them, and the proof.

The story, step by step; each function is one of them::

    start ─▶ publish ─▶ wait for the scene ─▶ kill ─▶ look at what is left ─▶ start again
          ─▶ approve ─▶ wait for the results ─▶ table ─▶ checks

Every step waits for a state, never for a time.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.client.client import Client
from orchestrator.client.handle import WorkflowHandle
from orchestrator.contrib.onboarding import BANK
from orchestrator.contrib.orders import FORKLIFT
from orchestrator.contrib.world import World
from orchestrator.demo import inputs, scene
from orchestrator.demo.checks import CHECKS, REVIEWED
from orchestrator.demo.evidence import Evidence
from orchestrator.demo.kafka_stage import KafkaStage
from orchestrator.demo.onboarding import MerchantOnboarding
from orchestrator.demo.orders import OrderFulfilment
from orchestrator.demo.report import Report
from orchestrator.demo.stage import EmbeddedStage, Stage
from orchestrator.errors import OrchestratorError, WorkflowFailure
from orchestrator.protocol.views import History

FAILED = 1
INTERRUPTED = 130
"""Exit codes; the second is of who was told to stop."""

RESULTS_TIMEOUT_S = 180.0
"""How long the runs may take to end after the restart. They need about six seconds."""


def perform(
    *, serve: bool, port: int, data: Path | None, log: str, namespace: str, kafka_config: Path | None
) -> int:
    """Tell the story, from the first process to the last check; returns the exit code.

    For the arguments see :func:`orchestrator.demo.command.demo`.
    """
    report = Report()
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-demo-")) if data is None else data.absolute()
    code = FAILED
    try:
        stage: Stage = (
            KafkaStage(folder, port, log, namespace, kafka_config) if log else EmbeddedStage(folder, port)
        )
        code = asyncio.run(_main(report, stage, serve=serve))
    except OrchestratorError as error:
        report.failed(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = INTERRUPTED
    if data is None and code != FAILED:
        shutil.rmtree(folder, ignore_errors=True)
    elif code == FAILED and folder.exists():
        report.step(f"to look into it: {folder} has the data and the logs, and the ledger of the world")
    return code


async def _main(report: Report, stage: Stage, *, serve: bool) -> int:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    try:
        evidence = await tell_story(report, stage)
        report.table(evidence.after)
        passed = report.verdict((check.claim, list(check.problems(evidence))) for check in CHECKS)
        if serve:
            await _serve(report, stage)
        return 0 if passed else FAILED
    finally:
        await stage.stop()


async def _serve(report: Report, stage: Stage) -> None:
    """Return at Ctrl-C; raise if the engine ends before that."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    report.serving(stage.address)
    waits = [asyncio.ensure_future(wait) for wait in (stop.wait(), stage.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if not stop.is_set():
        stage.check()


async def tell_story(report: Report, stage: Stage) -> Evidence:
    """Everything up to the last result. The stage runs when this returns; to stop it is the caller's.

    Raises:
        ProcessFailed: something did not start, or ended by itself.
        SceneMissed: there was no moment in which everything was under way.
        Unavailable: runs did not end in time.
        WorkflowAlreadyStarted: the folder holds an open run of an earlier demo.
    """
    began = time.monotonic()
    world = World(stage.world)
    with world.held(FORKLIFT):
        started = await _until_the_scene_is_set(report, stage, world)
        killed_ms = time.time_ns() // 1_000_000
        report.step(await stage.strike())

        # The log before the ledger: what completes in between is in the ledger alone, and is no repetition.
        left = await asyncio.to_thread(stage.histories)
        ran_before = len(world.executions())
    run_ids = {handle.run_id for handle in started}
    before = {name: history for name, history in left.items() if history.run_id in run_ids}
    report.step(f"the log holds {_events(before)} events of {len(before)} runs; {ran_before} activities ran")

    client, words = await stage.start()
    async with client:
        report.step(words)
        await client.get_workflow_handle(REVIEWED).signal(OrderFulfilment.approve)
        report.step(f"{REVIEWED} approved")
        await _results(report, client, started)
        after = {handle.id: await client.history(handle.id, handle.run_id) for handle in started}
    report.step(f"all runs are closed, {time.monotonic() - began:.1f} s after the first start")
    executions, effects = world.executions(), world.effects()
    return Evidence(killed_ms, before, after, ran_before, executions, effects)


async def _until_the_scene_is_set(report: Report, stage: Stage, world: World) -> list[WorkflowHandle[Any]]:
    client, words = await stage.start()
    async with client:
        report.step(words)
        with world.held(BANK):
            started = await _publish(client)
            report.step(f"{len(started)} start events published: merchants and orders")
            await scene.wait_until_set(client, scene.LASTING, stage.check)
        await scene.wait_until_set(client, scene.PASSING, stage.check)
    report.step(scene.in_words([*scene.LASTING, *scene.PASSING]))
    return started


async def _publish(client: Client) -> list[WorkflowHandle[Any]]:
    merchants = [client.start_workflow(MerchantOnboarding.run, m, id=m.id) for m in inputs.merchants()]
    orders = [client.start_workflow(OrderFulfilment.run, o, id=o.id) for o in inputs.orders()]
    return [*await asyncio.gather(*merchants), *await asyncio.gather(*orders)]


async def _results(report: Report, client: Client, started: list[WorkflowHandle[Any]]) -> None:
    async def closed(handle: WorkflowHandle[Any]) -> None:
        with suppress(WorkflowFailure):  # some are meant to fail; the checks tell which
            await client.get_workflow_handle(handle.id, handle.run_id).result(RESULTS_TIMEOUT_S)

    with report.progress("runs closed", len(started)) as advance:
        for done in asyncio.as_completed([closed(handle) for handle in started]):
            await done
            advance()


def _events(histories: dict[str, History]) -> int:
    return sum(len(turn.events) for history in histories.values() for turn in history.turns)
