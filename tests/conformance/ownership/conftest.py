"""The same logs as those of the port's suite: an adapter that joins there joins here."""

from __future__ import annotations

from tests.conformance.log.conftest import harness

__all__ = ["harness"]
