"""Runs activities."""

from orchestrator.worker.worker import Worker

__all__ = ["Worker"]
