"""For all tests: what a skipped test means on CI, and when a test may be run again.

On CI, a skipped test is a failed run, for nobody would notice what it no longer shows. A test on a broker is
run a second time if it fails: on a busy machine, a broker that a dozen tests share may be late beyond any
patience. Which were is said at the end, and more than a few fail the run, for that is no accident.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A busy machine is no failure: what takes how long is measured by bench/, not judged by tests.
settings.register_profile("no deadlines", deadline=None)
settings.load_profile("no deadlines")

pytest_plugins = ["tests.kafka.fixtures"]

MAX_SECOND_TRIES = 5
"""Of some five hundred tests on a broker."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A broker may be late once."""
    for item in items:
        if item.get_closest_marker("kafka") is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))


def _tried_again(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return list(reporter.stats.get("rerun", ())) if reporter else []


def _skipped(config: pytest.Config) -> list[pytest.TestReport]:
    if os.environ.get("CI", "").lower() not in ("1", "true"):
        return []
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return list(reporter.stats.get("skipped", ())) if reporter else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session that skipped anything, or tried too much again. Runs where the reports meet, so with
    xdist once.
    """
    if hasattr(session.config, "workerinput"):
        return
    if _skipped(session.config) or len(_tried_again(session.config)) > MAX_SECOND_TRIES:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which tests were skipped, and that this is why the run failed; and which were tried again."""
    for report in _skipped(config):
        terminalreporter.write_line(f"SKIPPED, and CI=true forbids that: {report.nodeid}", red=True)
    again = _tried_again(config)
    for report in again:
        terminalreporter.write_line(f"tried again: {report.nodeid}", yellow=True)
    if len(again) > MAX_SECOND_TRIES:
        terminalreporter.write_line(f"at most {MAX_SECOND_TRIES} tests may be tried again", red=True)
