"""What processes agree on unless they are told otherwise. Imports nothing, so that every command may."""

from __future__ import annotations

from typing import Final

HOST: Final = "127.0.0.1"
PORT: Final = 7350
ADDRESS: Final = f"http://{HOST}:{PORT}"
ADDRESS_VARIABLE: Final = "ORCHESTRATOR_ADDRESS"
"""The environment variable that names the engine to talk to, where no ``--address`` is given."""

VIEW_VARIABLE: Final = "ORCHESTRATOR_VIEW"
"""The environment variable that names the view to read at, where an address on Kafka has no ``--view``."""

DATA_FOLDER: Final = ".orchestrator"
TASK_QUEUE: Final = "default"
SLOTS: Final = 100
"""Activities that one worker runs at a time."""
RETENTION_DAYS: Final = 7.0
"""How long closed runs are kept. Temporal's users choose 1 to 30 days."""

LOG_VARIABLE: Final = "ORCHESTRATOR_LOG"
"""The environment variable that names the log, where no ``--log`` is given."""

NAMESPACE: Final = "default"
NAMESPACE_VARIABLE: Final = "ORCHESTRATOR_NAMESPACE"
"""The environment variable that names the namespace, where no ``--namespace`` is given."""
