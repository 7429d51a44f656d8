"""The contract is written from Canvas's code: beside each case stands where it was read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

OURS = {"test_page.py", "test_rows_control.py", "test_sources.py"}
"""About the sandbox's own page and control side."""
SOURCES = (".rb", ".lua", "bookmarked_collection", "canvasapi", "uw-restclients-canvas", "documentation", "Not of Canvas")
FILES = sorted(path for path in Path(__file__).parent.glob("test_*.py") if path.name not in OURS)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_every_case_names_its_source(file: Path) -> None:
    cases = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.AsyncFunctionDef)]
    tests = [node for node in cases if node.name.startswith("test_")]
    silent = [test.name for test in tests if not any(source in (ast.get_docstring(test) or "") for source in SOURCES)]
    assert tests
    assert silent == []
