from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import cli

KAFKA = ("--address", "kafka://127.0.0.1:1")
HTTP = ("--address", "http://127.0.0.1:1")


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ADDRESS", "VIEW", "NAMESPACE", "LOG"):
        monkeypatch.delenv(f"ORCHESTRATOR_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", *KAFKA), "read at a view, and none is named; name one with --view or $ORCHESTRATOR_VIEW"),
        (("show", "w", *KAFKA), "read at a view, and none is named"),
        (("list", *KAFKA, "--view", "kafka://x"), "'kafka://x' is not understood; expected one like http://"),
        (("list", *KAFKA, "--view", "http://127.0.0.1:1"), "start one with 'orchestrator view'"),
        (("signal", "w", "s", *KAFKA, "--namespace", "a.b"), "letters, digits, - and _"),
        (("cancel", "w", *KAFKA, "--kafka-config", "nix"), "cannot be read: No such file"),
        (("list", *HTTP), "start one with 'orchestrator dev', or name another with --address"),
        (("list", *HTTP, "--namespace", "orders"), "has its own namespace, settings and views"),
        (("list", *HTTP, "--view", "http://x"), "has its own namespace, settings and views"),
        (("list", "--kafka-config", "x"), "http://127.0.0.1:7350 is an engine"),
        (("list", "--address", "ftp://x"), "'ftp://x' is not understood; expected one like http://"),
    ],
)
def test_what_is_meant_by_an_address(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """None of these gets as far as Kafka."""
    assert cli.run(("workflow", *arguments)) == 1
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("error: ")
    assert words in said
    assert said.count("\n") == 1
