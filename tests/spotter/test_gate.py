"""The gate in front of the model: it skips nearly silent audio, and changes nothing of what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_audio.energy_gate import EnergyGate, GateSettings, band_powers
from earmark_spotter import (
    AudioFormat,
    Encoding,
    ModelError,
    ResumeError,
    ResumePoint,
    SpotterModel,
    StreamState,
    resolve_settings,
)
from earmark_spotter.resume import decode_token, encode_token, stream_digest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from earmark_spotter import Detection

RATE_HZ = 16_000
FORMAT = AudioFormat(Encoding.FLOAT32, RATE_HZ)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> SpotterModel:
    document = {**tiny_model.metadata(), "gate": {"margins_db": [4, 5, 6], "hold_ms": 400}}
    path = tmp_path_factory.mktemp("gated") / "gated.onnx"
    return SpotterModel.load(tiny_model.build(path, document=document))


class Run:
    """A stream; `scores` has the scores of the frames on which the model was run, by frame."""

    def __init__(
        self, model: SpotterModel, *, gated: bool = True, resume: ResumePoint | None = None, at_once: int = 7
    ) -> None:
        self.model, self.at_once = model, at_once
        self.stream = StreamState(model, FORMAT, resolve_settings(model.metadata), resume, gated=gated)
        self.state = model.initial_states(1)
        self.scores: dict[int, np.ndarray] = {}
        self.run_steps = 0
        self.detections: list[Detection] = []
        self.tokens: list[tuple[int, bytes]] = []

    def push(self, samples: np.ndarray) -> None:
        self.stream.push_samples(samples)
        self._process()

    def push_silence(self, count: int) -> None:
        self.stream.push_silence(count)
        self._process()

    def finish(self) -> None:
        self.stream.finish()
        self._process()
        assert self.stream.finished

    def _process(self) -> None:
        stream = self.stream
        while True:
            if steps := stream.steps_to_run(self.at_once):
                if stream.starts_from_initial_state:
                    self.state = self.model.initial_states(1)
                first = stream.next_sample // self.model.metadata.frame_samples
                new = stream.next_new_frame
                pcm = stream.consume(steps)
                self.run_steps += steps
                rows, self.state = self.model.step(pcm[np.newaxis], self.state)
                for frame, row in enumerate(rows[0], first):
                    if frame >= new:
                        self.scores[frame] = row
                self.detections += stream.apply(rows[0])
            elif stream.quiet_steps:
                self.detections += stream.skip(stream.quiet_steps)
            else:
                break
            progress = stream.progress()
            self.tokens.append((progress.replay_offset_ns, progress.resume_token))


def in_noise(seconds: float, words: Sequence[float], *, noise: float = 1e-3, seed: int = 0) -> np.ndarray:
    return tiny_model.recording([(at, "mid") for at in words], seconds, noise=noise, seed=seed)


def spotted(model: SpotterModel, samples: np.ndarray, *, gated: bool = True, chunk: int = 3200) -> Run:
    run = Run(model, gated=gated)
    for start in range(0, len(samples), chunk):
        run.push(samples[start : start + chunk])
    run.finish()
    return run


def test_words_in_noise_are_detected_and_most_of_the_noise_is_skipped(gated: SpotterModel) -> None:
    samples = in_noise(60, [10.03, 30.5, 47.77])
    run, full = spotted(gated, samples), spotted(gated, samples, gated=False)
    assert run.detections == full.detections
    assert len(run.detections) == 3
    assert run.run_steps < full.run_steps / 6


def test_scores_after_the_gate_opened_are_those_of_running_everything(gated: SpotterModel) -> None:
    samples = in_noise(30, [5.0, 5.7, 14.2, 23.9])
    run, full = spotted(gated, samples), spotted(gated, samples, gated=False)
    assert 0 < len(run.scores) < len(full.scores) / 2
    for frame, row in run.scores.items():
        np.testing.assert_allclose(row, full.scores[frame], atol=1e-5)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(st.floats(0.1, 11.5), max_size=4),
    cuts=st.lists(st.integers(1, 20_000), min_size=1, max_size=30),
    noise=st.sampled_from([0.0, 1e-4, 3e-3]),
    pause=st.sampled_from([0, 1, 500, 160_000, 700_000]),
)
def test_the_result_does_not_depend_on_the_chunks(
    gated: SpotterModel, words: list[float], cuts: list[int], noise: float, pause: int
) -> None:
    samples = in_noise(12, words, noise=noise)
    whole, pieces = Run(gated), Run(gated, at_once=3)
    for run, sizes in ((whole, [len(samples)]), (pieces, cuts)):
        for part in (samples, samples[: len(samples) // 2]):
            for piece in np.split(part, np.cumsum(sizes)):
                run.push(piece)
            if run is whole:
                run.push_silence(pause)
            else:
                run.push(np.zeros(pause, np.float32))
        run.finish()
    assert whole.detections == pieces.detections
    assert whole.scores.keys() == pieces.scores.keys()


@pytest.mark.slow
def test_a_stream_resumed_anywhere_skips_and_detects_the_same(gated: SpotterModel) -> None:
    samples = np.concatenate(
        [in_noise(14, [3.1, 6.0, 6.5, 11.2]), np.zeros(5 * RATE_HZ, np.float32), in_noise(6, [2.0], seed=3)]
    )
    whole = spotted(gated, samples, chunk=2000)
    assert len(whole.detections) == 5
    for offset_ns, token in whole.tokens:
        run = Run(gated, resume=ResumePoint(offset_ns, token))
        first = run.stream.next_new_frame
        rest = samples[offset_ns * RATE_HZ // 10**9 :]
        for start in range(0, len(rest), 5000):
            run.push(rest[start : start + 5000])
        run.finish()
        assert run.scores.keys() == {frame for frame in whole.scores if frame >= first}
        for frame, row in run.scores.items():
            np.testing.assert_allclose(row, whole.scores[frame], atol=1e-5)
        assert run.detections == whole.detections[len(whole.detections) - len(run.detections) :]


def test_a_token_with_an_impossible_gate_is_rejected(gated: SpotterModel) -> None:
    run = spotted(gated, in_noise(4, [1.0]))
    offset_ns, token = run.tokens[-1]
    digest = stream_digest(gated, FORMAT, resolve_settings(gated.metadata))
    state = decode_token(token, digest, [gated.resume_key])
    assert state.gate is not None
    wrong: list[Any] = [
        None,
        replace(state.gate, run_steps=1000),
        replace(state.gate, gated_steps=-1),
        replace(state.gate, state=replace(state.gate.state, open_blocks=1000)),
        replace(state.gate, state=replace(state.gate.state, open_blocks=1, powers=((0.0,) * 3,) * 10)),
        replace(state.gate, state=replace(state.gate.state, floors=(1.0,))),
        replace(state.gate, state=replace(state.gate.state, floors=(1.0, 2.0, 1e13))),
    ]
    for gate in wrong:
        forged = encode_token(replace(state, gate=gate), digest, gated.resume_key)
        with pytest.raises(ResumeError):
            Run(gated, resume=ResumePoint(offset_ns, forged))


def test_noise_that_grows_opens_the_gate_until_its_floor_has_followed(gated: SpotterModel) -> None:
    quiet, loud = in_noise(10, [], noise=1e-3), in_noise(60, [], noise=5e-3, seed=1)
    run = spotted(gated, np.concatenate([quiet, loud]))
    frames = sorted(run.scores)
    second = RATE_HZ / gated.metadata.frame_samples
    assert {round(frame / second) for frame in frames if frame > 10 * second} >= set(range(12, 20))
    assert frames[-1] < 50 * second


def test_digital_silence_does_not_change_the_noise_floor() -> None:
    gate = EnergyGate(GateSettings(), RATE_HZ, 640)
    noise = in_noise(4, [])
    gate.observe(noise)
    assert not gate.is_open
    floors = gate.state.floors
    gate.observe(np.zeros(16_000, np.float32))
    assert gate.state.floors == floors
    gate.observe(noise[:32_000])
    assert not gate.is_open


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 48_000])
def test_the_bands_cover_the_same_frequencies_at_every_rate(rate_hz: int) -> None:
    time = np.arange(rate_hz) / rate_hz
    loudest = []
    for hz in (3200, 1700, 900):
        tone = np.sin(2 * np.pi * hz * time).astype(np.float32)
        powers = band_powers(tone, rate_hz, rate_hz // 25)
        assert powers.shape == (25, 3)
        loudest.append(int(powers.mean(0).argmax()))
    assert loudest == [0, 1, 2]


@pytest.mark.parametrize(
    ("gate", "field"),
    [
        ({"margins_db": [4, 5], "hold_ms": 400}, "gate.margins_db"),
        ({"margins_db": [4, 5, 6, 7], "hold_ms": 400}, "gate.margins_db"),
        ({"margins_db": [4, 5, "6"], "hold_ms": 400}, "gate.margins_db.2"),
        ({"margins_db": [4, 5, -6], "hold_ms": 400}, "gate.margins_db.2"),
        ({"margins_db": [4, 5, 6]}, "gate.hold_ms"),
        ({"margins_db": [4, 5, 6], "hold_ms": 1e9}, "gate.hold_ms"),
        ("on", "gate"),
    ],
)
def test_an_invalid_gate_is_named(tmp_path: Path, gate: object, field: str) -> None:
    document = {**tiny_model.metadata(), "gate": gate}
    with pytest.raises(ModelError, match=f"`{field}`"):
        SpotterModel.load(tiny_model.build(tmp_path / "wrong.onnx", document=document))
