"""The examples in the package's docstring and in the documents work as written there."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import earmark_client
from support.readme_commands import examples

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_example_works(address: str, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = earmark_client.__doc__ or ""
    code = textwrap.dedent(text[text.index("    import asyncio") :])
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    exec(code.replace("speech.flac", str(recording)).replace("localhost:50051", address), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["low", "mid", "high"]
    assert [len(line.split()) for line in lines] == [4, 4, 4]


def run_example(code: str, address: str, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(code.replace("speech.flac", str(recording)).replace("localhost:50051", address), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["low", "mid", "high"]


def test_the_example_in_the_readme_works(
    address: str, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = examples("README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    run_example(code, address, recording, capsys)


def test_the_asyncio_example_works(address: str, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example(examples("docs/clients.md", "python")[0], address, recording, capsys)
