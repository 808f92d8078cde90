"""The examples in the package's docstring and in the README, as they stand there."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import earmark_client

if TYPE_CHECKING:
    import pytest


def test_the_example_works(address: str, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = earmark_client.__doc__ or ""
    code = textwrap.dedent(text[text.index("    import asyncio") :])
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    exec(code.replace("speech.flac", str(recording)).replace("localhost:50051", address), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["low", "mid", "high"]
    assert [len(line.split()) for line in lines] == [4, 4, 4]


def test_the_readme_s_example_works(
    address: str, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0]
    exec(code.replace("speech.flac", str(recording)).replace("localhost:50051", address), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["low", "mid", "high"]
