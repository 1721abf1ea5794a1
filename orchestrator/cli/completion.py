"""``orchestrator completion``: what a shell needs to complete our commands and options."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from orchestrator.cli import make_app, output


def completion(shell: Annotated[Literal["bash", "fish", "zsh"], Parameter(name="SHELL")], /) -> None:
    """Print the script.

    Parameters
    ----------
    shell:
        The shell that is to read it.
    """
    output.write(make_app().generate_completion(prog_name="orchestrator", shell=shell))
