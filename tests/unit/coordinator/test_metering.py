"""What a coordinator measures, read as Prometheus reads it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.coordinator.metering import MetricsMeter
from orchestrator.log.topics import COMMANDS, COMMANDS_TX, HISTORY, WORKERS
from orchestrator.protocol import commands as c
from orchestrator.protocol.records import Claim, history_key
from orchestrator.protocol.values import Failure, FailureKind
from orchestrator.telemetry.metrics import CoordinatorMetrics

from .kit import TO_ME, Bench, report, signal, start


@workflow.defn(name="Order")
class Order:
    def __init__(self) -> None:
        self.paid = False

    @workflow.run
    async def run(self) -> None:
        retry = workflow.RetryPolicy(initial_interval=2, backoff_coefficient=1, maximum_attempts=3)
        await workflow.execute_activity(
            "charge", start_to_close_timeout=timedelta(seconds=30), retry_policy=retry
        )
        await workflow.sleep(60)
        await workflow.wait_condition(lambda: self.paid)

    @workflow.signal
    def pay(self) -> None:
        self.paid = True

    @workflow.signal
    def stumble(self) -> None:
        raise RuntimeError("a bug")


class Measured:
    """A coordinator whose metrics are asked for by name."""

    def __init__(self, folder: Path) -> None:
        self.registry = CollectorRegistry()
        options = {"meter": MetricsMeter(CoordinatorMetrics(self.registry))}
        self.bench = type("Bench", (Bench,), {"options": options})(folder, Order)
        self.bench.beat()

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"orchestrator_{name}", labels)

    def count(self, name: str) -> tuple[float | None, float | None]:
        """How often something was observed, and the sum."""
        return self(f"{name}_count"), self(f"{name}_sum")

    def scraped(self) -> None:
        """A second passes: gauges are set with the beat."""
        self.bench.pass_s(1)


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    return Measured(tmp_path)


def failed(task: object) -> c.FailActivity:
    failure = Failure(kind=FailureKind.APPLICATION, type="Busy", message="later")
    return report(task, c.FailActivity, failure=failure)  # type: ignore[no-any-return]


def test_what_alerts_look_at_is_there_before_it_happens() -> None:
    registry = CollectorRegistry()
    MetricsMeter(CoordinatorMetrics(registry), ["Order"])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"orchestrator_{name}", labels)

    assert [value("dead_letters_total", topic=topic) for topic in (COMMANDS, COMMANDS_TX, WORKERS)] == [0] * 3
    for status in ("Completed", "Failed", "Canceled", "Terminated", "TimedOut"):
        assert value("workflows_closed_total", workflow_type="Order", status=status) == 0
    assert value("partitions") == 0


def test_a_type_that_was_not_named_is_counted_from_its_first_start_on(measured: Measured) -> None:
    measured.bench.send(start())
    assert measured("workflows_closed_total", workflow_type="Order", status="Failed") == 0


def test_a_run_is_counted_from_its_start_to_its_close(measured: Measured) -> None:
    bench = measured.bench
    bench.send(start())
    assert measured("workflows_started_total", workflow_type="Order") == 1
    bench.send(failed(bench.tasks[-1]))
    bench.pass_s(2)
    bench.send(report(bench.tasks[-1]))
    bench.pass_s(60)
    bench.send(signal("pay"))
    assert measured("workflows_closed_total", workflow_type="Order", status="Completed") == 1
    assert measured.registry.get_sample_value(
        "orchestrator_workflow_duration_seconds_sum", {"workflow_type": "Order"}
    ) == pytest.approx(62, abs=2)
    assert measured("activities_closed_total", outcome="completed") == 1
    assert measured("activity_attempts_failed_total") == 1
    assert measured.count("activity_attempts") == (1, 2)
    assert measured.count("turn_commit_seconds")[0] == len(bench.turns)
    assert measured("commands_total", command="StartWorkflow") == 1


def test_a_repeated_start_is_no_other_run(measured: Measured) -> None:
    measured.bench.send(start())
    measured.bench.send(start())
    assert measured("workflows_started_total", workflow_type="Order") == 1
    assert measured("commands_total", command="StartWorkflow") == 2


def test_a_start_waits_from_its_append_on(measured: Measured) -> None:
    measured.bench.put(start())
    measured.bench.runtime.elapsed_s += 3
    measured.bench.settle()
    assert measured.count("workflow_start_latency_seconds") == (1, 3)


def test_how_late_deadlines_are_decided(measured: Measured) -> None:
    bench = measured.bench
    bench.send(start())
    bench.send(report(bench.tasks[-1]))
    before = measured.count("timer_lateness_seconds")
    assert before == (0, 0)
    bench.runtime.elapsed_s += 64  # the process was paused: it claims anew, and is 4 s late
    bench.settle()
    assert measured.count("timer_lateness_seconds") == (1, pytest.approx(4, abs=0.5))


def test_blocked_runs_are_counted_across_restarts_until_they_close(measured: Measured) -> None:
    bench = measured.bench
    bench.send(start())
    bench.send(signal("stumble"))
    measured.scraped()
    assert measured("blocked_runs") == 1
    bench.restart()
    measured.scraped()
    assert measured("blocked_runs") == 1
    bench.send(c.TerminateWorkflow(workflow_id="a", request_id="t", reply_to=TO_ME))
    measured.scraped()
    assert measured("blocked_runs") == 0
    assert measured("workflows_closed_total", workflow_type="Order", status="Terminated") == 1


def test_claims_that_are_lost_and_records_that_do_not_count(measured: Measured) -> None:
    bench = measured.bench
    bench.send(start())
    late = bench.turns[-1]
    assert (measured("claims_total"), measured("claims_lost_total")) == (1, 0)
    other = Claim(epoch=2, nonce="another", owner="other", generation=1, time_ms=0)
    bench.land(HISTORY, avro.encode(other), history_key(other))
    bench.land(HISTORY, avro.encode(late), history_key(late))
    bench.until(lambda: not bench.partition.ownership.running)
    bench.pass_s(10)
    assert (measured("claims_total"), measured("claims_lost_total")) == (2, 1)
    assert measured("void_records_total") == 1


def test_what_waits_for_a_worker_and_what_is_set_aside(measured: Measured) -> None:
    bench = measured.bench
    bench.beat(stopped=True)
    bench.send(start())
    bench.land(COMMANDS, b"garbage")
    measured.scraped()
    measured.scraped()
    assert measured("queue_backlog", task_queue="default") == 1
    assert measured("queue_oldest_seconds", task_queue="default") == pytest.approx(2, abs=1)
    assert measured("dead_letters_total", topic="commands") == 1
    assert measured("partitions") == 1
    bench.beat(worker="w2")
    measured.scraped()
    assert measured("queue_backlog", task_queue="default") == 0
    assert measured("queue_oldest_seconds", task_queue="default") == 0
