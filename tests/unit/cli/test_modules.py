from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli.modules import load
from orchestrator.errors import ConfigError, DefinitionError, ModuleLoadError
from orchestrator.workflow import determinism

WORKFLOW = (
    "from orchestrator import workflow\n"
    "@workflow.defn\nclass {name}:\n    @workflow.run\n    async def run(self): ...\n"
)
ACTIVITY = "from orchestrator import activity\n@activity.defn\ndef {name}(): ...\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    determinism.uninstall()


def test_workflows_and_activities_are_found_by_name(folder: Path) -> None:
    (folder / "one_module.py").write_text(WORKFLOW.format(name="A") + ACTIVITY.format(name="a"))
    (folder / "two_module.py").write_text("from one_module import A, a\n" + ACTIVITY.format(name="b"))
    found = load(["one_module", "two_module.py"])
    assert (set(found.workflows), set(found.activities)) == ({"A"}, {"a", "b"})


def test_plain_python_stays_what_it_is_where_no_workflow_runs(folder: Path) -> None:
    """In a process of its own, for what is replaced stays so."""
    (folder / "some_module.py").write_text("from time import time\n" + WORKFLOW.format(name="A"))
    code = """
import sys, time
from orchestrator.cli.modules import load
own = time.time
load(["some_module"], runs_workflows=False)
assert time.time is own
load(["some_module"])
assert time.time is not own
assert sys.modules["some_module"].time is time.time
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_a_module_in_a_package_is_named_either_way(folder: Path) -> None:
    (folder / "a_package").mkdir()
    (folder / "a_package" / "inner.py").write_text(WORKFLOW.format(name="A"))
    assert set(load(["a_package/inner.py", "a_package.inner"]).workflows) == {"A"}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("1 / 0", ModuleLoadError, "ZeroDivisionError: division by zero .*bad_module.py, line 1"),
        (
            "from orchestrator import workflow\n@workflow.defn\nclass W: ...\n",
            ModuleLoadError,
            r"workflow W has no entry; .* \(.*bad_module.py, line 2\)",
        ),
        ("def", ModuleLoadError, "SyntaxError"),
        ("import no_such_thing", ModuleLoadError, "No module named 'no_such_thing'"),
        ("raise SystemExit(3)", ModuleLoadError, "SystemExit: 3"),
        ("", ConfigError, "no workflow and no activity in bad_module"),
        (
            "from good_module import *\n" + ACTIVITY.format(name="a"),
            DefinitionError,
            "two activities are named 'a'",
        ),
        (WORKFLOW.format(name="A"), DefinitionError, "good_module.A and bad_module.A"),
    ],
)
def test_what_is_wrong_with_a_module(folder: Path, text: str, error: type[Exception], words: str) -> None:
    names = ["bad_module"]
    if issubclass(error, DefinitionError):
        (folder / "good_module.py").write_text(WORKFLOW.format(name="A") + ACTIVITY.format(name="a"))
        names.insert(0, "good_module")
    (folder / "bad_module.py").write_text(text)
    with pytest.raises(error, match=words):
        load(names)


def test_a_module_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ModuleLoadError, match="there is no module 'nowhere' in"):
        load(["nowhere"])
