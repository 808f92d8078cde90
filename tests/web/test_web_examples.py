"""The examples in docs/web.md, run as they are shown."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile
from support.deadlines import DEADLINE_S
from support.earmark_command import RATE_HZ, WORDS, samples
from support.web_page import web

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "web.md").read_text()
SPOKEN = [word for _, word in WORDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recording that the examples use."""
    folder = tmp_path_factory.mktemp("examples")
    soundfile.write(folder / "speech.wav", samples(), RATE_HZ, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def host(address: str) -> Iterator[str]:
    """The host and port of a page, in place of the examples' localhost:8080."""
    with web("--server", address) as (url, _):
        yield url.removeprefix("http://").removesuffix("/")


def run(command: list[str], folder: Path) -> str:
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=DEADLINE_S
    ).stdout


def test_the_python_example_prints_the_detections(host: str, folder: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    printed = run([sys.executable, "-c", program.replace("localhost:8080", host)], folder)
    assert [line.split()[0] for line in printed.splitlines()] == SPOKEN


def test_the_commands_return_the_detections_and_the_class(host: str, folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    model = json.loads(run(["curl", "-s", f"http://{host}/info"], folder))["model"]
    spot, predict = (
        json.loads(
            run(shlex.split(line.replace("localhost:8080", host).replace("earmark-en", model)), folder)
        )
        for line in re.findall(r"^curl .*$", PAGE, re.MULTILINE)
    )
    assert [one["keyword"] for one in spot["detections"]] == SPOKEN
    assert predict["prediction"] in SPOKEN
