"""Warnings about live audio, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import soundfile
from support.earmark_command import RATE_HZ, earmark, json_lines, samples

if TYPE_CHECKING:
    from pathlib import Path

BIG_ENDIAN = (samples() + np.random.default_rng(1).integers(-30, 30, len(samples()))).astype(">i2").tobytes()


def test_spot_prints_warnings_about_raw_samples_on_standard_error(address: str) -> None:
    done = earmark("spot", "-", "--server", address, stdin=BIG_ENDIAN)
    assert done.returncode == 0
    assert "big-endian" in done.stderr
    assert done.stderr.startswith("earmark: standard input: The audio looks like")
    assert done.stderr.count("\n") == 1


def test_spot_prints_warnings_about_raw_samples_as_json(address: str) -> None:
    done = earmark("spot", "-", "--server", address, "--json", stdin=BIG_ENDIAN)
    (warning,) = [line for line in json_lines(done.stdout) if line["type"] == "warning"]
    assert (warning["source"], warning["reason"]) == ("-", "OTHER_FORMAT")
    assert f"earmark: standard input: {warning['message']}\n" == done.stderr


def test_a_problem_of_a_recording_is_printed_once(address: str, tmp_path: Path) -> None:
    path = tmp_path / "clipped.wav"
    soundfile.write(path, np.where(samples() >= 0, 32767, -32768).astype(np.int16), RATE_HZ)
    done = earmark("spot", path, "--server", address, "--json")
    reasons = [line["reason"] for line in json_lines(done.stdout) if line["type"] == "warning"]
    assert reasons == ["CLIPPED"]
    assert done.stderr.count("\n") == 1
