"""scripts/test_inference.sh, with which the pipeline tests an image; here it calls a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.deadlines import DEADLINE_S
from support.paths import REPOSITORY
from support.sample_audio import SampleAudio, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    not (shutil.which("flite") and shutil.which("sox")), reason="flite or sox is missing"
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_server(SampleAudio(None, 16_000, b"")) as address:
        yield address


def ask(address: str, out: Path, words: str, *, synthesizer: str = "") -> subprocess.CompletedProcess[str]:
    path = f"{synthesizer}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["scripts/test_inference.sh", "--server", address],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": path, "OUT": str(out), "WORDS": words},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_synthesized_keywords_are_detected_and_latencies_are_written(address: str, tmp_path: Path):
    words = "no left right down"
    done = ask(address, tmp_path, words)
    assert done.returncode == 0, done.stderr
    response = json.loads((tmp_path / "response.json").read_text())
    metrics = json.loads((tmp_path / "inference_metrics.json").read_text())
    assert metrics["said"] == 3 * words.split()  # by three voices
    assert metrics["detected"] == [one["keyword"] for one in response["detections"]]
    assert metrics["right"] >= 9
    assert metrics["spot_ms"] > 0
    assert 0 < metrics["classify_one_second"]["p50_ms"] <= metrics["classify_one_second"]["p95_ms"]


def test_unknown_keywords_are_an_error(address: str, tmp_path: Path):
    done = ask(address, tmp_path, "banana")
    assert done.returncode == 1
    assert "has none of the keywords banana" in done.stderr


def test_missed_keywords_are_an_error(address: str, tmp_path: Path):
    # A synthesizer that whistles instead of speaking.
    whistler = tmp_path / "flite"
    whistler.write_text(f'#!/bin/sh\nexec {shutil.which("sox")} -q -n -r 16000 -c 1 "$6" synth 1 sine 3000\n')
    whistler.chmod(0o755)
    done = ask(address, tmp_path, "yes left", synthesizer=str(tmp_path))
    assert done.returncode == 1
    assert "spoken: yes left yes left yes left; detected:" in done.stderr


def test_wrong_usage_prints_the_usage():
    done = subprocess.run(
        ["scripts/test_inference.sh"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "IMAGE" in done.stderr
