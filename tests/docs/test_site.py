"""The documentation builds as a site: no link leads nowhere, and all that is public is in the reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sphinx.util.inventory import InventoryFile

import orchestrator
from orchestrator import activity, workflow

ROOT = Path(__file__).parent.parent.parent


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


def test_what_is_public_is_in_the_reference(site: Path) -> None:
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, page: page)
    described = {
        name.rpartition(".")[2]
        for kind, found in inventory.items()
        if kind.startswith("py:") and kind != "py:module"
        for name in found
    }
    for module in (orchestrator, activity, workflow):
        modules = {name for name in module.__all__ if isinstance(getattr(module, name), ModuleType)}
        assert set(module.__all__) - modules <= described, module.__name__


def test_there_is_a_map_for_programs_that_read(site: Path) -> None:
    text = (site / "llms.txt").read_text()
    assert "Kafka" in text
    assert "tutorial" in text.lower()
