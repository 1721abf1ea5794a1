"""The command ``orchestrator``.

Commands are registered by name, as ``"module:function"``, and imported when they are called: ``--help``
imports none of them, nor the library that parses them. To add one, add an entry to one of the tables
below, and run ``make usage``; the text is its help, and its first paragraph stands in the list of commands.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from cyclopts import App

EXIT_CODES = """\
Exit codes: 0 done, 1 error, 2 wrong usage, 4 no such workflow, type, signal
or query, 5 the workflow itself did not complete, 124 the wait timed out,
130 interrupted."""

_ABOUT = "Durable execution for Python whose only infrastructure is Kafka."

_COMMANDS = {
    "dev": (
        "orchestrator.cli.dev:dev",
        """Run everything in one process: engine, worker and HTTP API, with all data in one folder.

        Imports the modules from the current directory and runs the workflows and activities in them. Stop
        it with Ctrl-C; everything goes on where it was at the next start, after a kill -9 too.

        Example: orchestrator dev workflows activities""",
    ),
    "coordinator": (
        "orchestrator.cli.coordinator:coordinator",
        """Decide what workflows do next, as one of any number of coordinators that share a Kafka namespace.

        Imports the modules from the current directory and runs the workflows in them. Stop it with Ctrl-C;
        others take over, after a kill -9 too.

        Example: orchestrator coordinator workflows --log kafka://127.0.0.1:9092""",
    ),
    "worker": (
        "orchestrator.cli.worker:worker",
        """Run activities, as one of any number of workers.

        Imports the modules from the current directory and runs the activities in them, for a Kafka namespace,
        or for an engine that serves HTTP.

        Example: orchestrator worker activities --log kafka://127.0.0.1:9092""",
    ),
    "view": (
        "orchestrator.cli.view:view",
        """Show what happens in a Kafka namespace, over HTTP, as one of any number of views.

        Reads everything into a folder of its own, so that lists cost the coordinators nothing. What is asked
        of workflows (start, signal, query) it passes on to Kafka, for programs without a Kafka client too.

        Example: orchestrator view --log kafka://127.0.0.1:9092""",
    ),
    "failures": (
        "orchestrator.cli.troubles:failures",
        """Group the runs that failed, or fail now, by what their failures have in common.

        Numbers and ids in messages do not tell failures apart. A run is in the group of what closed or blocks
        it, or else of what its worst activity failed with last.

        Example: orchestrator failures --limit 5 --watch""",
    ),
    "stuck": (
        "orchestrator.cli.troubles:stuck",
        """Show what does not get on: blocked runs, and activities that fail again and again or wait.

        Example: orchestrator stuck --attempts 3 --waiting 30""",
    ),
    "cluster": (
        "orchestrator.cli.cluster:cluster",
        """Show coordinators with their partitions, workers with their queues, versions and lag.

        Example: orchestrator cluster --watch --interval 5""",
    ),
    "doctor": (
        "orchestrator.cli.doctor:doctor",
        """Look for what is wrong with brokers, topics, rights, clocks, versions, members and runs.

        Each check is a line, which says what to do. Asks Kafka (--log), an engine or a view over HTTP
        (--address), or both. Exits with 1 if a check failed; warnings are none.

        Example: orchestrator doctor --log kafka://127.0.0.1:9092 --namespace orders""",
    ),
    "completion": (
        "orchestrator.cli.completion:completion",
        """Print the script with which a shell completes commands and options.

        Put it where your shell looks for such scripts: for bash, into
        ~/.local/share/bash-completion/completions/orchestrator.

        Example: orchestrator completion bash""",
    ),
    "demo": (
        "orchestrator.demo.command:demo",
        """Watch business processes survive a kill -9.

        Example: orchestrator demo --serve""",
    ),
}

_RUN_WORKFLOW_CODE = ("coordinator", "dev")
"""Commands whose process needs a fixed hash seed: it begins anew before it has imported much."""

_WORKFLOW_COMMANDS = {
    "start": """Start a workflow; returns when its start is durable.

        Example: orchestrator workflow start Order --id order-17 --input '"o-17"' --input 4200""",
    "result": """Wait until a workflow is closed and print its result as JSON; exits with 5 if it failed.

        Example: orchestrator workflow result order-17 --timeout 60""",
    "signal": """Send a signal to a workflow; returns when it is durable.

        Example: orchestrator workflow signal order-17 approve --input '"Ann"'""",
    "query": """Ask a workflow something, without changing it, and print the answer.

        Example: orchestrator workflow query order-17 status""",
    "stack": """Show where the code of a workflow waits: each of its tasks, line by line.

        Example: orchestrator workflow stack order-17""",
    "cancel": """Ask workflows to cancel themselves; their code may clean up first. '-' reads ids from stdin.

        Example: orchestrator workflow cancel order-17 --reason "ordered by mistake"
        """,
    "terminate": """Close workflows at once; their code hears nothing of it. '-' reads ids from stdin.

        Example: orchestrator workflow terminate order-17 --reason "ordered by mistake"
        """,
    "describe": """Show one run as it stands: input, result, what it waits for, what failed.

        Example: orchestrator workflow describe order-17""",
    "show": """Show the history of one run; '-o json' is the export format, which replays read.

        With --follow, what comes is shown too, until the run is closed.

        Example: orchestrator workflow show order-17 -o json > order-17.json""",
    "list": """List the runs that match a query, newest start first.

        Fields: WorkflowId, RunId, WorkflowType, ExecutionStatus, StartTime, CloseTime, HistoryLength,
        ActivityType, Attempt, FailureGroup, Tags. Operators: = != > >= < <= STARTS_WITH IN BETWEEN, IS NULL,
        with AND, OR, NOT and parentheses.

        Example: orchestrator workflow list -q 'ExecutionStatus = "Failed" AND StartTime > "2026-01-01"'""",
    "count": """Count the runs that match a query, by status and type.

        Example: orchestrator workflow count -q 'ExecutionStatus IN ("Failed", "TimedOut")'""",
}


_TOPIC_COMMANDS = {
    "create": """Make the topics of a namespace on Kafka; what is there already stays as it is.

        Example: orchestrator topic create --log kafka://127.0.0.1:9092 --namespace orders""",
    "list": """Show the topics of a namespace on Kafka, and whether they are as they should be.

        Example: orchestrator topic list --log kafka://127.0.0.1:9092 --namespace orders""",
    "tail": """Print the newest records of a topic, decoded; with --follow, those that come too.

        Example: orchestrator topic tail history --follow --log kafka://127.0.0.1:9092""",
}

_QUEUE_COMMANDS = {
    "list": """Show the task queues: how much waits, since when, and who serves them.

        Example: orchestrator queue list""",
}

_GROUPS = {
    "workflow": ("Start, ask, change and look at workflows.", _WORKFLOW_COMMANDS),
    "queue": ("Look at task queues.", _QUEUE_COMMANDS),
    "topic": ("Make and look at the topics of a namespace on Kafka.", _TOPIC_COMMANDS),
}
"""Groups of commands: a command ``name`` of a group is the function ``name_`` in the group's module."""

_FORMER = {"topics": "topic"}
"""Groups by the names that they had: scripts may call them so."""


def make_app() -> App:
    """The tree of commands."""
    from cyclopts import App, Parameter

    from orchestrator.cli.help import flowing
    from orchestrator.cli.version import version

    common: dict[str, Any] = {"help_format": "plaintext", "help_epilogue": EXIT_CODES}
    # An empty text is how an option says that it was not given: that is no default to show, which None says.
    shown = Parameter(show_default=lambda value: cast(str, str(value) if value else None))
    app = App(name="orchestrator", help=_ABOUT, version=version, default_parameter=shown, **common)
    for name, (place, about) in _COMMANDS.items():
        app.command(place, name=name, help=flowing(about), **common)
    for group, (about_group, commands) in _GROUPS.items():
        grouped = App(name=group, help=about_group, **common)
        for name, about in commands.items():
            grouped.command(f"orchestrator.cli.{group}:{name}_", name=name, help=flowing(about), **common)
        app.command(grouped)
    return app


def commands() -> Iterator[tuple[str, ...]]:
    """The words of each command, and of each group of commands."""
    yield from ((name,) for name in _COMMANDS)
    for group, (_, grouped) in _GROUPS.items():
        yield (group,)
        yield from ((group, name) for name in grouped)


def help_asked(arguments: Sequence[str]) -> str:
    """The help that is asked for, if it is ready to be printed; else ""."""
    words = tuple(argument for argument in arguments if argument not in ("--help", "-h"))
    if len(words) == len(arguments) and words not in {(), *((group,) for group in _GROUPS)}:
        return ""
    from orchestrator.cli import help

    return help.ready(words)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; errors are one message on stderr each."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    from orchestrator.cli import exits

    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        return exits.hang_up()


def _run(arguments: Sequence[str]) -> int:
    from orchestrator.cli import exits

    arguments = [*(_FORMER.get(group, group) for group in arguments[:1]), *arguments[1:]]
    if text := help_asked(arguments):
        print(text)
        return exits.OK
    if arguments and arguments[0] in _RUN_WORKFLOW_CODE:
        from orchestrator.cli.process import fix_hash_seed

        fix_hash_seed()

    from cyclopts import CycloptsError, UnusedCliTokensError

    from orchestrator.errors import OrchestratorError

    try:
        code = make_app()(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
        return code if isinstance(code, int) else exits.OK
    except UnusedCliTokensError as error:
        surplus = " ".join(error.unused_tokens or ())
        return exits.tell(f"there are too many arguments: {surplus}", exits.USAGE, "see --help")
    except CycloptsError as error:
        return exits.tell(f"{error}".strip(), exits.USAGE, "see --help")
    except OrchestratorError as error:
        return exits.tell(str(error), exits.code_of(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("orchestrator."):
            return exits.tell(f"this command is not part of this installation: {error}", exits.ERROR)
        raise
