"""Publishes commands and waits for their answers."""

from orchestrator.client.client import Client, StartOptions
from orchestrator.client.handle import WorkflowHandle
from orchestrator.client.reads import AsyncReader

__all__ = ["AsyncReader", "Client", "StartOptions", "WorkflowHandle"]
