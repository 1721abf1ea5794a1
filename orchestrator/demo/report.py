"""What the demo says: its steps on stderr, the table and the verdict on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from orchestrator.demo.evidence import failures, summarize
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import History

PLAIN_WIDTH = 200
"""Columns where nobody looks at a terminal: wide enough that nothing is folded."""

_COLORS = {WorkflowStatus.COMPLETED: "green", WorkflowStatus.FAILED: "red"}


class Report:
    """Talks to people; colours are for terminals only, and NO_COLOR is obeyed."""

    def __init__(self, out: Console | None = None, err: Console | None = None) -> None:
        """By default stdout and stderr."""
        self._out = out or _console(stderr=False)
        self._err = err or _console(stderr=True)

    def step(self, text: str) -> None:
        """The next thing has happened."""
        self._err.print(f"[bold]▸[/bold] {escape(text)}", highlight=False, soft_wrap=True)

    def failed(self, text: str) -> None:
        """The demo could not be finished."""
        self._err.print(f"[bold red]demo failed:[/bold red] {escape(text)}", highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar, on terminals; yields what moves it on by one."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        bar = Progress(*columns, console=self._err, transient=True, disable=not self._err.is_terminal)
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)

    def table(self, histories: dict[str, History]) -> None:
        """What became of each run."""
        table = Table("id", "status", box=None, pad_edge=False, header_style="bold")
        table.add_column("steps", justify="right")
        table.add_column("attempts", justify="right")
        table.add_column("error")
        table.add_column("time", justify="right")
        for workflow_id, history in histories.items():
            found = summarize(history)
            color = _COLORS.get(found.status, "yellow")
            table.add_row(
                workflow_id,
                f"[{color}]{found.status}[/{color}]",
                str(found.steps),
                str(found.attempts),
                escape(_error(history)),
                "" if found.time_s is None else f"{found.time_s:.1f} s",
            )
        self._out.print()
        self._out.print(table)
        self._out.print()

    def verdict(self, checks: Iterable[tuple[str, list[str]]]) -> bool:
        """What was checked, and what is wrong; whether nothing is."""
        passed = True
        for claim, problems in checks:
            mark = "[red]✗[/red]" if problems else "[green]✓[/green]"
            self._out.print(f"{mark} {escape(claim)}", highlight=False, soft_wrap=True)
            for problem in problems:
                self._out.print(f"    {escape(problem)}", highlight=False, soft_wrap=True)
            passed = passed and not problems
        if not passed:
            self.failed("the claims marked with ✗ are not true")
        return passed

    def serving(self, address: str) -> None:
        """The engine goes on; how to look at it."""
        option = f"--address {address}"
        lines = (
            f"\nthe engine goes on at {address}, until Ctrl-C; in another terminal try:",
            f"  orchestrator workflow list {option}",
            f"  orchestrator workflow describe m-9001-BAD {option}",
            f"  orchestrator workflow show o-1003 {option}",
        )
        self._out.print("\n".join(lines), highlight=False, soft_wrap=True)


def _error(history: History) -> str:
    """Why it failed; or, if all is well, what it recovered from."""
    found = summarize(history)
    tags = f" [{', '.join(found.tags)}]" if found.tags else ""
    overcome = "" if found.error else "; ".join(f"recovered: {message}" for message in failures(history))
    return f"{found.error or overcome}{tags}"


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=PLAIN_WIDTH)
