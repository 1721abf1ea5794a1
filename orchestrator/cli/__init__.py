"""The command ``orchestrator``.

Commands are registered by name, as ``"module:function"``, and imported when they are called: ``--help``
imports none of them. To add one, add a line to :func:`make_app` or to the module of its group.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import App

EXIT_CODES = """\
Exit codes: 0 done, 1 error, 2 wrong usage, 4 no such workflow, type, signal or query,
5 the workflow itself did not complete, 124 the wait timed out, 130 interrupted."""

_COMMANDS = {
    "dev": ("orchestrator.cli.dev:dev", "Run everything in one process, for development."),
    "demo": ("orchestrator.demo.command:demo", "Watch business processes survive a kill -9."),
}

_WORKFLOW_COMMANDS = {
    "start": "Start a workflow.",
    "result": "Wait for a workflow and print its result.",
    "signal": "Send a signal to a workflow.",
    "query": "Ask a workflow something, without changing it.",
    "cancel": "Ask workflows to cancel themselves.",
    "terminate": "Close workflows at once.",
    "describe": "Show one run as it stands.",
    "show": "Show the history of one run.",
    "list": "List runs, newest start first.",
}


def make_app() -> App:
    """The tree of commands."""
    from cyclopts import App

    from orchestrator.cli.version import version

    common: dict[str, Any] = {"help_format": "plaintext", "help_epilogue": EXIT_CODES}
    app = App(
        name="orchestrator",
        help="Durable execution for Python whose only infrastructure is Kafka.",
        version=version,
        **common,
    )
    for name, (place, about) in _COMMANDS.items():
        app.command(place, name=name, help=about, **common)
    workflow = App(name="workflow", help="Start, ask, change and look at workflows.", **common)
    for name, about in _WORKFLOW_COMMANDS.items():
        workflow.command(f"orchestrator.cli.workflow:{name}_", name=name, help=about, **common)
    app.command(workflow)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; errors are one message on stderr each."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    from cyclopts import CycloptsError

    from orchestrator.cli import exits
    from orchestrator.errors import OrchestratorError

    try:
        code = make_app()(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else exits.OK
    except CycloptsError as error:
        return exits.tell(f"{error}".strip(), exits.USAGE, "see --help")
    except OrchestratorError as error:
        return exits.tell(str(error), exits.code_of(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("orchestrator."):
            return exits.tell(f"this command is not part of this installation: {error}", exits.ERROR)
        raise
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        return exits.hang_up()
