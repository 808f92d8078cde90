from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "README.md").read_text().partition("## What it promises")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (.+) \| (`tests/.+) \|$", SECTION, re.MULTILINE)


@pytest.mark.parametrize(("promise", "tests"), ROWS)
def test_every_promise_has_its_test(promise: str, tests: str):
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", tests)
    assert named, promise
    for path, name in named:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        found = {name} & functions if name else {f for f in functions if f.startswith("test_")}
        assert found, f"{path}::{name}"


def test_no_row_of_the_table_is_overlooked():
    assert len(ROWS) == SECTION.count("\n| ") - 1 > 20
