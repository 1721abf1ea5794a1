"""What users' tests and our simulation need."""

from orchestrator.testing.replayer import Replayer

__all__ = ["Replayer"]
