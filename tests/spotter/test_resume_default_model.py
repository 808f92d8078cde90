"""Streams of speech that break again and again, with the bundled model, its gate and its verifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_spotter import (
    AudioFormat,
    Encoding,
    ResumePoint,
    SpotterModel,
    StreamState,
    resolve_settings,
)

if TYPE_CHECKING:
    from earmark_spotter import Detection

DEMO = Path(__file__).parents[2] / "client/earmark_cli/samples/demo.flac"
RATE_HZ = 16_000
FORMAT = AudioFormat(Encoding.FLOAT32, RATE_HZ)
CHUNK = 1600


@pytest.fixture(scope="module")
def model() -> SpotterModel:
    return SpotterModel.load()


@pytest.fixture(scope="module", params=["silence", "noise"])
def samples(request: pytest.FixtureRequest) -> np.ndarray:
    """Speech with pauses in which the gate closes: of digital silence, or of faint noise."""
    speech, _ = soundfile.read(DEMO, dtype="float32")
    pause = np.zeros(6 * RATE_HZ, np.float32)
    joined = np.concatenate(
        [pause[: RATE_HZ // 3], speech[: 9 * RATE_HZ], pause, speech[9 * RATE_HZ :], pause]
    )
    if request.param == "noise":
        joined += 1e-4 * np.random.default_rng(3).standard_normal(len(joined)).astype(np.float32)
    return joined


class Run:
    """One call: the audio from a resume point on, until it breaks."""

    def __init__(self, model: SpotterModel, samples: np.ndarray, resume: ResumePoint | None) -> None:
        self._model = model
        self._stream = StreamState(model, FORMAT, resolve_settings(model.metadata), resume)
        self._state = model.initial_states(1)
        self._rest = samples[0 if resume is None else resume.start_offset_ns * RATE_HZ // 10**9 :]
        self.detections: list[Detection] = []

    def play(self, seconds: float) -> ResumePoint:
        """Send audio of a length, or the rest; return the position that a Progress would have."""
        length = min(len(self._rest), int(seconds * RATE_HZ))
        for start in range(0, length, CHUNK):
            self._stream.push_samples(self._rest[start : min(length, start + CHUNK)])
            self._process()
        self._rest = self._rest[length:]
        if not len(self._rest):
            self._stream.finish()
            self._process()
        progress = self._stream.progress()
        return ResumePoint(progress.replay_offset_ns, progress.resume_token)

    def _process(self) -> None:
        stream = self._stream
        while True:
            if steps := stream.steps_to_run(50):
                if stream.starts_from_initial_state:
                    self._state = self._model.initial_states(1)
                scores, self._state = self._model.step(stream.consume(steps)[np.newaxis], self._state)
                self.detections += stream.apply(scores[0])
            elif stream.quiet_steps:
                self.detections += stream.skip(stream.quiet_steps)
            else:
                return


def found(detections: list[Detection]) -> list[tuple[str, int, int]]:
    return [(one.id, one.start_sample, one.end_sample) for one in detections]


@pytest.mark.parametrize("every_s", [0.7, 1.9, 5.3, 8.8])
def test_a_stream_that_breaks_again_and_again_loses_and_repeats_nothing(
    model: SpotterModel, samples: np.ndarray, every_s: float
) -> None:
    whole = Run(model, samples, None)
    whole.play(1000)
    assert len(whole.detections) == 13
    detections: list[Detection] = []
    resume: ResumePoint | None = None
    played_s = 0.0
    while played_s * RATE_HZ < len(samples):
        played_s += every_s
        run = Run(model, samples, resume)
        start_s = 0 if resume is None else resume.start_offset_ns / 1e9
        resume = run.play(played_s - start_s)
        detections += run.detections
    assert found(detections) == found(whole.detections)
