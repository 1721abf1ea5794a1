"""``orchestrator view``: shows what happens in one namespace on Kafka, and takes commands, over HTTP."""

from __future__ import annotations

from pathlib import Path

from orchestrator import config
from orchestrator.cli.kafka import Cluster
from orchestrator.cli.options import Logging
from orchestrator.cli.process import end_process


def view(
    *,
    data: Path = Path(config.DATA_FOLDER) / "view",
    port: int = config.PORT,
    host: str = config.HOST,
    public_url: str = "",
    logging: Logging | None = None,
    cluster: Cluster | None = None,
) -> int:
    """Run until a signal comes, or something breaks; ends the process.

    Parameters
    ----------
    data:
        A folder of this process alone; Kafka has all that is in it, so an empty one is filled again.
    port:
        Where HTTP is served; 0 takes a free one.
    host:
        The address that is listened on. Whoever reaches another one than this machine's own may do anything:
        put a proxy before it that asks who they are.
    public_url:
        Where people reach it through a proxy, such as `https://ops.example.com/orchestrator`.
    """
    (logging or Logging()).begin()
    from orchestrator.cli.view_process import run

    end_process(run((cluster or Cluster()).settings(), data, host, port, public_url))
