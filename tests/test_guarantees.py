"""Each guarantee in docs/guarantees.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/guarantees.md").read_text()
ROWS = re.findall(r"^\| (.+) \| (`tests/.+) \|$", PAGE, re.MULTILINE)
HEADS = "| guarantee | test |\n|---|---|\n"


@pytest.mark.parametrize(("guarantee", "tests"), ROWS)
def test_every_guarantee_has_its_test(guarantee: str, tests: str):
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", tests)
    assert named, guarantee
    for path, name in named:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        found = {name} & functions if name else {f for f in functions if f.startswith("test_")}
        assert found, f"{path}::{name}"


def test_every_row_of_the_tables_is_tested():
    tables = PAGE.count(HEADS)
    assert tables == PAGE.count("\n|---")
    assert len(ROWS) == PAGE.count("\n| ") - tables > 20


def test_the_readme_counts_them():
    assert f"[{len(ROWS)} guarantees](docs/guarantees.md)" in (ROOT / "README.md").read_text()
