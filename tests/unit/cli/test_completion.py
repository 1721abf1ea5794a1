"""A shell that read the script completes what there is."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from orchestrator.cli.completion import completion

SHELLS = {
    "bash": "bash -n",
    "fish": "fish --no-execute",
    "zsh": "zsh -n",
}
"""How each says whether it understands a script."""


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["work"], ["worker", "workflow"]),
        (["workflow", "sta"], ["stack", "start"]),
        (["workflow", "list", "--sta"], ["--status"]),
        (["completion", "z"], ["zsh"]),
    ],
    ids=" ".join,
)
def test_bash_completes(typed: list[str], completed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    completion("bash")
    words = " ".join(["orchestrator", *typed])
    asking = (
        f'COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _orchestrator; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", capsys.readouterr().out + asking], capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split()) == completed


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_of_its_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    completion(shell)  # type: ignore[arg-type]
    script = capsys.readouterr().out
    assert "workflow" in script
    if shutil.which(shell):
        subprocess.run(SHELLS[shell].split(), input=script, text=True, check=True)
