"""Publishes commands and waits for their answers."""

from orchestrator.client.client import Client
from orchestrator.client.handle import WorkflowHandle
from orchestrator.client.reads import AsyncReader
from orchestrator.client.starts import StartOptions

__all__ = ["AsyncReader", "Client", "StartOptions", "WorkflowHandle"]
