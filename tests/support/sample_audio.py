"""Recordings with known detections, and a server for them that is a separate process."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel

from support import tiny_model
from support.deadlines import DEADLINE_S
from support.paths import DEMO
from support.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class SampleAudio:
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


def tones(model_path: Path) -> SampleAudio:
    """Return a recording of the tiny model's words, which it certainly detects."""
    samples = tiny_model.recording([(0.5, "low"), (1.2, "mid"), (2, "high"), (2.9, "low")], 4, rate_hz=48_000)
    return SampleAudio(model_path, 48_000, (samples * 32767).astype("<i2").tobytes())


def speech() -> SampleAudio:
    """Return the bundled recording with the bundled model."""
    samples, rate_hz = soundfile.read(DEMO, dtype="int16")
    return SampleAudio(None, rate_hz, np.ascontiguousarray(samples).tobytes())


@contextlib.contextmanager
def running_server(sample: SampleAudio, *options: str) -> Iterator[str]:
    """Run `earmark-server` with the sample's model; yield HOST:PORT when it is serving."""
    model = () if sample.model_path is None else (f"--model={sample.model_path}",)
    with ServerProcess("--port=0", "--log-format=json", *options, *model) as server:
        yield f"127.0.0.1:{server.wait_until_serving()}"
        server.process.terminate()
        server.process.wait(DEADLINE_S)
