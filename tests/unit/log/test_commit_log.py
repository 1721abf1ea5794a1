"""The embedded log's own promises: those of the port are in tests/conformance/log."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, DataFolderInUse, LogError
from orchestrator.log import commit_log, tail
from orchestrator.log.commit_log import Append, Lane
from orchestrator.log.embedded import EmbeddedLog, EmbeddedMember
from orchestrator.log.faults import FaultHook
from orchestrator.log.port import Delivery, Outcome, Record
from orchestrator.log.record_store import RecordStore


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with EmbeddedLog(tmp_path / "data") as opened:
        yield opened


def append(log: EmbeddedLog, *keys: str, topic: str = "history", value: bytes = b"v") -> list[Delivery]:
    """Append through a member of its own; returns the deliveries in order."""
    member = log.member()
    appender = member.appender(ordered=True)
    for key in keys:
        appender.append(topic, 0, key.encode(), value)
    deliveries: list[Delivery] = []
    while len(deliveries) < len(keys):
        deliveries += member.poll(10).deliveries
    member.close()
    return deliveries


def keys_of(log: EmbeddedLog, topic: str = "history") -> list[str]:
    return [record.key.decode() for record in log.read(topic, 0, 0, 100_000)]


class TestOpening:
    def test_a_folder_has_one_log_at_a_time(self, log: EmbeddedLog) -> None:
        with pytest.raises(DataFolderInUse):
            EmbeddedLog(log.folder)
        append(log, "still-works")

    def test_another_number_of_partitions_is_a_config_error(self, tmp_path: Path) -> None:
        EmbeddedLog(tmp_path, partitions=3).close()
        with pytest.raises(ConfigError, match=r"created with 3 partitions, 4 were asked for.*use 3"):
            EmbeddedLog(tmp_path)
        EmbeddedLog(tmp_path, partitions=3).close()  # the failed attempt let go of the folder

    def test_the_cluster_id_stays_and_the_generation_grows(self, tmp_path: Path) -> None:
        with EmbeddedLog(tmp_path) as first, EmbeddedLog(tmp_path / "other") as other:
            assert first.cluster_id != other.cluster_id
            assert first.generation == 1
        with EmbeddedLog(tmp_path) as second:
            assert second.cluster_id == first.cluster_id
            assert second.generation == 2

    def test_a_log_that_vanished_is_not_replaced_by_an_empty_one(self, tmp_path: Path) -> None:
        EmbeddedLog(tmp_path).close()
        shutil.rmtree(tmp_path / "log")
        with pytest.raises(ConfigError, match="cannot be opened"):
            EmbeddedLog(tmp_path)

    def test_parts_of_two_folders_do_not_mix(self, tmp_path: Path) -> None:
        EmbeddedLog(tmp_path / "a").close()
        EmbeddedLog(tmp_path / "b").close()
        shutil.copy(tmp_path / "a" / "log.id", tmp_path / "b" / "log.id")
        with pytest.raises(ConfigError, match="mixed up"):
            EmbeddedLog(tmp_path / "b")

    def test_a_crash_while_the_folder_was_created_is_no_damage(self, tmp_path: Path) -> None:
        EmbeddedLog(tmp_path).close()
        (tmp_path / "log.id").unlink()
        EmbeddedLog(tmp_path).close()
        assert (tmp_path / "log.id").exists()

    def test_a_format_from_the_future_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as future:
            future.setattr(commit_log, "_FORMAT", b"2")
            EmbeddedLog(tmp_path).close()
        with pytest.raises(ConfigError, match="use the version that wrote it"):
            EmbeddedLog(tmp_path)

    def test_a_closed_log_says_so(self, tmp_path: Path) -> None:
        log = EmbeddedLog(tmp_path)
        member = log.member()
        log.close()
        log.close()
        member.appender(ordered=True).append("history", 0, b"k", b"v")
        for call in (lambda: member.poll(0), lambda: member.end("history", 0), lambda: log.compact()):
            with pytest.raises(LogError, match="is closed"):
                call()

    def test_closing_writes_what_was_appended(self, tmp_path: Path) -> None:
        log = EmbeddedLog(tmp_path)
        member = log.member()
        member.appender(ordered=True).append("history", 0, b"k", b"v")
        member.poll(0)
        log.close()
        with EmbeddedLog(tmp_path) as again:
            assert keys_of(again) == ["k"]


class Disk(FaultHook):
    """A disk that fails where it is told to; counts syncs."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.syncs = 0

    def before_write(self) -> None:
        if self.fail == "write":
            raise OSError(28, "No space left on device")

    def before_sync(self) -> None:
        self.syncs += 1
        if self.fail == "sync":
            raise OSError(5, "Input/output error")


class TestFailures:
    @pytest.mark.parametrize(("fail", "words"), [("write", "No space left"), ("sync", "Input/output error")])
    def test_after_a_failure_nothing_is_acknowledged_or_readable_any_more(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, fail: str, words: str
    ) -> None:
        disk = Disk()
        log = EmbeddedLog(tmp_path, faults=disk)
        append(log, "good")
        disk.fail = fail
        assert [d.outcome for d in append(log, "a", "b")] == [Outcome.UNKNOWN] * 2
        disk.fail = ""
        [later] = append(log, "c")
        assert later.outcome is Outcome.UNKNOWN
        assert words in later.error
        assert "Free some disk space" in later.error
        assert keys_of(log) == ["good"]
        assert log.failure is not None
        assert words in caplog.text
        log.close()
        with EmbeddedLog(tmp_path) as again:
            assert keys_of(again) in (["good"], ["good", "a", "b"])  # all of a batch or nothing
            append(again, "d")

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """A real one: the process may not write files beyond a size."""
        program = """
import resource, sys
from pathlib import Path
from orchestrator.log.embedded import EmbeddedLog
log = EmbeddedLog(Path(sys.argv[1]))
member = log.member()
appender = member.appender(ordered=True)
n = 0
while True:
    appender.append("history", 0, b"%d" % n, b"x" * 1000, token=n)
    for delivery in member.poll(1).deliveries:
        if delivery.offset < 0:
            sys.exit(f"{delivery.outcome.value}: {delivery.error}")
        print(delivery.token, flush=True)
    n += 1
    if n == 60:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
"""
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "unknown: the log in" in done.stderr
        assert "File too large" in done.stderr
        acknowledged = done.stdout.split()
        assert len(acknowledged) >= 50
        with EmbeddedLog(tmp_path) as log:
            assert keys_of(log)[: len(acknowledged)] == acknowledged


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from orchestrator.log.embedded import EmbeddedLog
member = EmbeddedLog(Path(sys.argv[1])).member()
appender = member.appender(ordered=True)
n = 0
while True:
    for _ in range(7):
        appender.append("history", 0, b"%d" % n, b"x" * 300, token=n)
        n += 1
    for delivery in member.poll(1).deliveries:
        sys.stdout.write(f"{delivery.token}\\n")
    sys.stdout.flush()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().strip() for _ in range(700)]
        writer.kill()
        acknowledged += writer.stdout.read().split("\n")[:-1]
    with EmbeddedLog(tmp_path) as log:
        found = keys_of(log)
        assert found[: len(acknowledged)] == acknowledged
        assert found == [str(n) for n in range(len(found))]  # no gap, nothing twice
        append(log, "next")
        assert keys_of(log)[-1] == "next"


class TestGroupCommit:
    def test_what_is_appended_between_two_polls_is_synced_once_before_it_is_acknowledged(
        self, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        durable: list[int] = []
        sync = RecordStore.sync

        def synced(store: RecordStore) -> None:
            assert log.end("history", 0) == 0
            sync(store)
            durable.append(log.end("history", 0))

        monkeypatch.setattr(RecordStore, "sync", synced)
        append(log, *(str(n) for n in range(100)))
        monkeypatch.undo()
        assert durable == [0]
        assert log.end("history", 0) == 100

    def test_ephemeral_records_are_never_synced(self, tmp_path: Path) -> None:
        disk = Disk()
        with EmbeddedLog(tmp_path, faults=disk) as log:
            assert append(log, "a", topic="tasks")[0].outcome is Outcome.DELIVERED
            assert keys_of(log, "tasks") == ["a"]
        assert disk.syncs == 0

    def test_threads_share_the_log(self, log: EmbeddedLog) -> None:
        def write(name: str) -> None:
            for n in range(20):
                append(log, *(f"{name}-{n}-{k}" for k in range(5)))

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = keys_of(log)
        assert len(found) == 400
        for name in "abcd":
            mine = [key for key in found if key.startswith(name)]
            assert mine == [f"{name}-{n}-{k}" for n in range(20) for k in range(5)]


class TestReading:
    def read_all(self, member: EmbeddedMember, count: int, topic: str = "history") -> list[Record]:
        records: list[Record] = []
        while len(records) < count:
            records += [record for record in member.poll(10).records if record.topic == topic]
        return records

    def test_a_slow_reader_reads_from_disk(self, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commit_log, "READ_BYTES", 3_000)
        reader = log.member()
        reader.seek("history", 0, 0)
        log.tail("history", 0)._limit = 2_000  # four records stay in memory
        append(log, *(str(n) for n in range(50)), value=b"x" * 100)
        assert log.tail("history", 0).base > 40
        assert [int(record.key) for record in self.read_all(reader, 50)] == list(range(50))
        assert [int(record.key) for record in log.read("history", 0, 0, 10)] == list(range(10))

    def test_a_slow_reader_of_an_ephemeral_topic_goes_on_with_what_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "EPHEMERAL_TAIL_BYTES", 2_000)
        with EmbeddedLog(tmp_path) as log:
            reader = log.member()
            reader.seek("workers", 0, 0)
            for n in range(50):
                append(log, str(n), topic="workers")
            found = [int(record.key) for record in reader.poll(1).records]
            assert found == list(range(50 - len(found), 50))
            assert 1 <= len(found) <= 4

    def test_a_log_is_read_from_disk_after_a_restart(self, tmp_path: Path) -> None:
        with EmbeddedLog(tmp_path) as log:
            append(log, *(str(n) for n in range(2_500)))
        with EmbeddedLog(tmp_path) as log:
            reader = log.member()
            reader.seek("history", 0, 10)
            assert [int(record.key) for record in self.read_all(reader, 2_490)] == list(range(10, 2_500))

    def test_deleted_records_leave_the_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commit_log, "DELETE_RECORDS", 10)
        with EmbeddedLog(tmp_path) as log:
            append(log, *(str(n) for n in range(30)), topic="commands")
            log.delete_records("commands", 0, 9)
            assert len(list(log._store.scan("commands", 0, 0, 100))) == 30
            log.delete_records("commands", 0, 25)
            assert len(list(log._store.scan("commands", 0, 0, 100))) == 5
            assert keys_of(log, "commands") == [str(n) for n in range(25, 30)]


class TestDriving:
    """A member that joined commits in its own thread; nobody depends on it for long."""

    def test_a_member_that_does_not_poll_holds_up_nobody(self, log: EmbeddedLog) -> None:
        busy = log.member()
        busy.join()
        [delivery] = append(log, "k")
        assert delivery.outcome is Outcome.DELIVERED

    def test_its_poll_commits_what_others_appended(self, log: EmbeddedLog) -> None:
        driver = log.member()
        driver.join()
        driver.poll(0)
        driver.seek("history", 0, 0)
        other = log.member()
        other.appender(ordered=True).append("history", 0, b"k", b"v")
        other.poll(0)
        assert [record.key for record in driver.poll(10).records] == [b"k"]
        assert [delivery.offset for delivery in other.poll(10).deliveries] == [0]

    def test_closing_writes_what_a_driver_left(self, tmp_path: Path) -> None:
        log = EmbeddedLog(tmp_path)
        driver = log.member()
        driver.join()
        log.submit([Append(Record("history", 0, -1, 0, b"k", b"v", {}), None, Lane(ordered=False), Notes())])
        log.close()
        with EmbeddedLog(tmp_path) as again:
            assert keys_of(again) == ["k"]


class Notes:
    def report(self, deliveries: list[Delivery]) -> None:
        pass
