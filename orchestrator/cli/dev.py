"""``orchestrator dev``: all roles in one process, on the embedded log, with HTTP for everybody else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from orchestrator import config
from orchestrator.cli.options import Logging, Slots, retention_of
from orchestrator.cli.process import end_process


def dev(
    modules: Annotated[list[str], Parameter(name="MODULE", negative=())],
    /,
    *,
    data: Path = Path(config.DATA_FOLDER),
    port: int = config.PORT,
    task_queue: str = config.TASK_QUEUE,
    slots: Slots = config.SLOTS,
    retention_days: float = config.RETENTION_DAYS,
    public_url: str = "",
    logging: Logging | None = None,
) -> int:
    """Run until a signal comes, or something breaks; ends the process.

    Parameters
    ----------
    modules:
        Modules with workflows and activities, such as `app` or `shop.orders`.
    data:
        The folder that keeps all data.
    port:
        Where HTTP is served, on 127.0.0.1; 0 takes a free one.
    task_queue:
        The queue whose activities are run here.
    slots:
        How many activities run at a time.
    retention_days:
        How long closed runs are kept.
    public_url:
        Where people reach it through a proxy, such as `https://ops.example.com/orchestrator`.
    """
    (logging or Logging()).begin()
    from orchestrator.cli.dev_process import run

    retention = retention_of(retention_days)
    end_process(run(modules, data, port, public_url, task_queue=task_queue, slots=slots, retention=retention))
