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
    ("arguments", "code", "words"),
    [
        (
            ("list", *KAFKA),
            2,
            "read at a view, and none is named; name one with --view or $ORCHESTRATOR_VIEW",
        ),
        (("show", "w", *KAFKA), 2, "read at a view, and none is named"),
        (
            ("list", *KAFKA, "--view", "kafka://x"),
            2,
            "'kafka://x' is not understood; expected one like http://",
        ),
        (("list", *KAFKA, "--view", "http://127.0.0.1:1"), 1, "start one with 'orchestrator view'"),
        (("signal", "w", "s", *KAFKA, "--namespace", "a.b"), 2, "letters, digits, - and _"),
        (("cancel", "w", *KAFKA, "--kafka-config", "nix"), 2, "cannot be read: No such file"),
        (("list", *HTTP), 1, "start one with 'orchestrator dev', or name another with --address"),
        (("list", *HTTP, "--namespace", "orders"), 2, "has its own namespace, settings and views"),
        (("list", *HTTP, "--view", "http://x"), 2, "has its own namespace, settings and views"),
        (("list", "--kafka-config", "x"), 2, "http://127.0.0.1:7350 is an engine"),
        (("list", "--address", "ftp://x"), 2, "'ftp://x' is not understood; expected one like http://"),
    ],
)
def test_what_is_meant_by_an_address(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """None of these gets as far as Kafka."""
    assert cli.run(("workflow", *arguments)) == code
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("error: ")
    assert words in said
    assert said.count("\n") == 1
