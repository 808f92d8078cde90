"""The arbiter of several microphones."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from support.deadlines import DEADLINE_S
from support.earmark_command import RATE_HZ, earmark, json_lines, samples
from support.paths import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


# A device: prints the lines of a file, each detection at the time at which it would be decided.
DEVICE = """
import json, sys, time
for line in open(sys.argv[1]):
    event = json.loads(line)
    time.sleep(max(0, float(sys.argv[2]) + event.get("end_s", 0) - time.time()))
    print(line, end="", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("best", [0, 2])
def test_the_device_with_the_best_signal_answers_once(address: str, tmp_path: Path, best: int) -> None:
    random = np.random.default_rng(1)
    device = tmp_path / "device.py"
    device.write_text(DEVICE)
    begin_s = time.time() + 4
    devices = []
    for number in range(3):
        # A far microphone may even be the loudest: the noise counts.
        noise = random.normal(0, 50 if number == best else 400, len(samples()))
        gain = 0.5 if number == best else 0.6
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, (samples() * gain + noise).astype(np.int16), RATE_HZ)
        lines = tmp_path / f"{number}.jsonl"
        lines.write_text(earmark("spot", path, "--json", "--server", address).stdout)
        devices.append(shlex.join([sys.executable, str(device), str(lines), str(begin_s)]))
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples/arbiter.py", *devices],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    answers = json_lines(done.stdout)
    assert [answer["keyword"] for answer in answers] == ["low", "mid", "high"]
    assert {answer["device"] for answer in answers} == {devices[best]}
