"""For all tests: on CI, a skipped test is a failed run, for nobody would notice what it no longer shows."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A busy machine is no failure: what takes how long is measured by bench/, not judged by tests.
settings.register_profile("no deadlines", deadline=None)
settings.load_profile("no deadlines")

pytest_plugins = ["tests.kafka.fixtures"]


def _skipped(config: pytest.Config) -> list[pytest.TestReport]:
    if os.environ.get("CI", "").lower() not in ("1", "true"):
        return []
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return list(reporter.stats.get("skipped", ())) if reporter else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session that skipped anything. Runs where the reports meet, so with xdist once."""
    if not hasattr(session.config, "workerinput") and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which tests were skipped, and that this is why the run failed."""
    for report in _skipped(config):
        terminalreporter.write_line(f"SKIPPED, and CI=true forbids that: {report.nodeid}", red=True)
