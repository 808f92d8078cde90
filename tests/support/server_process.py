"""A server as a separate process, and recordings that other programs send to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel

from support import tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "client/earmark_cli/samples/demo.flac"
TIMEOUT_S = 60


@dataclass
class Case:
    """A model, a recording as 16-bit mono samples, and the detections of the library in it."""

    model_path: Path | None
    rate_hz: int
    samples: bytes

    @property
    def model(self) -> SpotterModel:
        return SpotterModel.load(self.model_path)

    @property
    def seconds(self) -> float:
        return len(self.samples) / 2 / self.rate_hz

    def detections(self) -> list[tuple[str, str]]:
        spotter = Spotter(self.model, audio_format=AudioFormat(Encoding.LINEAR16, self.rate_hz))
        found = spotter.feed(self.samples) + spotter.flush()
        return [(one.keyword, one.id) for one in found]


def tones(model_path: Path) -> Case:
    """Return a recording of the tiny model's words, which it certainly detects."""
    samples = tiny_model.recording([(0.5, "low"), (1.2, "mid"), (2, "high"), (2.9, "low")], 4, rate_hz=48_000)
    return Case(model_path, 48_000, (samples * 32767).astype("<i2").tobytes())


def speech() -> Case:
    """Return the bundled recording with the bundled model."""
    samples, rate_hz = soundfile.read(DEMO, dtype="int16")
    return Case(None, rate_hz, np.ascontiguousarray(samples).tobytes())


@contextlib.contextmanager
def running_server(case: Case, *options: str) -> Iterator[str]:
    """Run `earmark-server`; yield HOST:PORT when it is serving."""
    arguments = [sys.executable, "-m", "earmark_server", "--port=0", "--log-format=json", *options]
    if case.model_path is not None:
        arguments.append(f"--model={case.model_path}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EARMARK_")}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            port = None
            for line in process.stderr:
                told = json.loads(line)
                port = told.get("port", port)
                if told["event"] == "serving":
                    break
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=TIMEOUT_S)
