"""The README's commands, as they stand there, on the bundled recording."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from outside import DEMO, REPOSITORY, TIMEOUT_S, running_server, speech

if TYPE_CHECKING:
    from pathlib import Path

README = (REPOSITORY / "README.md").read_text()
BLOCKS = [
    block.replace("\\\n", " ")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    if not language
]
LINES = [line.partition("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
# Those that need a microphone, a certificate, or never end have tests of their own.
EARMARK = [
    line for line in LINES if re.match("earmark (spot|classify|plot|tune) ", line) and "--tls" not in line
]
CURL = [re.sub(" +", " ", line) for line in LINES if line.startswith("buf curl")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's commands are given."""
    folder = tmp_path_factory.mktemp("readme")
    samples, rate_hz = soundfile.read(DEMO, dtype="float32")
    for name in ("interview.wav", "talk.mp3"):
        soundfile.write(folder / name, samples, rate_hz)
    stop = samples[int(5.5 * rate_hz) : int(6.4 * rate_hz)]
    soundfile.write(folder / "clip.wav", stop, rate_hz)
    (folder / "recordings/stop").mkdir(parents=True)
    soundfile.write(folder / "recordings/stop/1.wav", stop, rate_hz)
    soundfile.write(folder / "recordings/quiet.wav", np.zeros(rate_hz, np.float32), rate_hz)
    return folder


def test_there_is_something_to_run() -> None:
    assert len(EARMARK) >= 5
    assert len(CURL) == 3


@pytest.mark.parametrize("line", EARMARK)
def test_the_command_works(line: str, folder: Path) -> None:
    command = [sys.executable, "-m", "earmark_client", *shlex.split(line)[1:]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    if "-o" in command:
        assert (folder / command[command.index("-o") + 1]).stat().st_size > 10_000
    else:
        assert "stop" in done.stdout


@pytest.mark.skipif(shutil.which("buf") is None, reason="no buf: pip install buf-bin")
def test_buf_curl_gets_an_answer_to_each() -> None:
    with running_server(speech()) as address:
        for line in CURL:
            command = shlex.split(line.replace("127.0.0.1:50051", address))
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            assert done.returncode == 0, done.stderr
            assert re.search("KeywordSpottingService|SERVING|earmark-en", done.stdout)
