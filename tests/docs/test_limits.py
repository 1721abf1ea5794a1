"""The numbers that the documents give are those of the code."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
_ROW = re.compile(
    r"^\| `(?P<module>orchestrator[\w.]+)\.(?P<name>[A-Z_]+)` \| (?P<value>[\d.,]+) \|", re.MULTILINE
)
DOCUMENTS = ("docs/semantics.md", "docs/http-workers.md", "docs/wire.md")
ROWS = [row for document in DOCUMENTS for row in _ROW.findall((ROOT / document).read_text())]


@pytest.mark.parametrize(("module", "name", "value"), ROWS, ids=[name for _, name, _ in ROWS])
def test_the_documented_limit_is_the_one_in_the_code(module: str, name: str, value: str) -> None:
    assert getattr(import_module(module), name) == float(value.replace(",", ""))


@pytest.mark.parametrize(("document", "rows"), list(zip(DOCUMENTS, (15, 10, 15), strict=True)))
def test_the_tables_were_found(document: str, rows: int) -> None:
    assert len(_ROW.findall((ROOT / document).read_text())) >= rows
