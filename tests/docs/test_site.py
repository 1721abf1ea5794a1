"""The documentation builds as a site: no link leads nowhere, and all that is public is in the reference."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from sphinx.util.inventory import InventoryFile

import orchestrator
from orchestrator import activity, testing, workflow
from orchestrator.cli import make_app
from orchestrator.client.handle import WorkflowHandle

ROOT = Path(__file__).parent.parent.parent
PUBLIC = (orchestrator, activity, workflow, testing)

NOT_FOR_USERS = {"Reply", "Session"}
"""What a client and its handles say to each other."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does it."""
    built = tmp_path_factory.mktemp("site")
    build = (sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-b", "html")
    done = subprocess.run(
        [*build, str(ROOT / "docs"), str(built)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return built


@pytest.fixture(scope="module")
def described(site: Path) -> set[str]:
    """The names in the reference, without their modules."""
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, page: page)
    return {
        name.rpartition(".")[2]
        for kind, found in inventory.items()
        if kind.startswith("py:") and kind != "py:module"
        for name in found
    }


def test_what_is_public_is_in_the_reference(described: set[str]) -> None:
    for module in PUBLIC:
        modules = {name for name in module.__all__ if isinstance(getattr(module, name), ModuleType)}
        assert set(module.__all__) - modules <= described, module.__name__


def _calls() -> Iterator[Any]:
    """What users call: public functions, and the methods of public classes."""
    found = [getattr(module, name) for module in PUBLIC for name in module.__all__]
    for thing in (*found, WorkflowHandle):
        if not inspect.isclass(thing):
            yield from [thing] if isinstance(thing, FunctionType) else []
            continue
        yield thing  # its attributes
        for name, member in vars(thing).items():
            function = getattr(member, "fget", getattr(member, "__func__", member))
            if isinstance(function, FunctionType) and (name == "__init__" or not name.startswith("_")):
                yield function


def _ours(hint: Any) -> Iterator[type]:
    """The classes of ours in an annotation; of options, those of each option too."""
    for part in get_args(hint):
        yield from _ours(part)
    named = get_origin(hint) or hint
    if isinstance(named, type) and named.__module__.startswith("orchestrator."):
        yield named
        if is_typeddict(named):
            for option in get_type_hints(named).values():
                yield from _ours(option)


def test_each_type_that_a_signature_names_is_in_the_reference(described: set[str]) -> None:
    named = {
        found.__qualname__
        for call in _calls()
        for hint in get_type_hints(call, include_extras=True).values()
        for found in _ours(hint)
    }
    assert {"StartOptions", "IdReusePolicy", "RunDescription"} <= named
    described_as = {"CancellationType": "ActivityCancellationType"}
    assert {described_as.get(name, name) for name in named} - described == NOT_FOR_USERS


def test_each_command_is_in_the_reference(site: Path) -> None:
    text = (site / "reference/cli.txt").read_text()
    groups = make_app().resolved_commands()
    assert "workflow" in groups
    for name in groups:
        if not name.startswith("-"):
            assert re.search(rf"^ *orchestrator {name}\b", text, re.MULTILINE), name
    assert "orchestrator workflow start --id STR [OPTIONS] TYPE" in text
    assert "Exit codes: 0 done" in text


def test_there_is_a_map_for_programs_that_read(site: Path) -> None:
    links = re.findall(r"^- \[(.+)\]\((.+)\): (.+)$", (site / "llms.txt").read_text(), re.MULTILINE)
    pages = {path.stem for path in (ROOT / "docs").rglob("*.*") if path.suffix in (".md", ".rst")} - {"index"}
    assert {Path(link).name.partition(".")[0] for _, link, _ in links} == pages
    for title, link, about in links:
        assert (site / link).is_file(), link  # relative, so it works below any path
        assert len(about) > len("What it is."), title


def test_all_of_it_is_one_file_too(site: Path) -> None:
    text = (site / "llms-full.txt").read_text()
    assert '"start_to_close_timeout": one attempt' in text
    assert "async start_workflow(" in text
    assert "id_reuse_policy" in text
    assert "## Where is it, has it timed out, undo it" in text
    assert ".. auto" not in text
