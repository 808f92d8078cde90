"""Silence that is skipped gives the same result, bit for bit, as silence on which the model is run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
from earmark_spotter import (
    AudioFormat,
    Detection,
    Detector,
    Encoding,
    KeywordSetting,
    Spotter,
    StreamState,
    resolve_settings,
)
from earmark_spotter.resampler import Resampler, materialize
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import SpotterModel

RATES = [16_000, 8000, 11_025, 44_100]

Part: TypeAlias = "tuple[str, int]"
"""The kind of a part of a stream, and its number of samples."""

parts = st.lists(
    st.tuples(
        st.sampled_from(["word", "noise", "zeros", "silence"]),
        st.one_of(st.integers(1, 3000), st.integers(3000, 80_000)),
    ),
    max_size=8,
)


def samples_of(kind: str, count: int, rate_hz: int) -> np.ndarray:
    """Return the audio of a part."""
    if kind in ("zeros", "silence"):
        return np.zeros(count, np.float32)
    if kind == "noise":
        return np.random.default_rng(count).normal(0, 0.05, count).astype(np.float32)
    seconds = max(1.0, count / rate_hz)
    return tiny_model.recording([(0.01, "mid")], seconds, rate_hz=rate_hz)[:count]


def push(stream: StreamState, kind: str, count: int, rate_hz: int) -> None:
    if kind == "silence":
        stream.push_silence(count)
    else:
        stream.push_samples(samples_of(kind, count, rate_hz))


class Run:
    """A stream that is run one step at a time, so that all runs of a model have the same shape."""

    def __init__(self, model: SpotterModel, rate_hz: int, *, skips: bool, **settings: float) -> None:
        active = resolve_settings(
            model.metadata, [KeywordSetting(name, **settings) for name in model.metadata.keyword_names]
        )
        self.model, self.skips = model, skips
        self.stream = StreamState(model, AudioFormat(Encoding.FLOAT32, rate_hz), active)
        self.state = model.initial_states(1)
        self.scores: list[np.ndarray] = []
        self.detections: list[Detection] = []
        self.inferences = 0

    def process(self) -> None:
        stream = self.stream
        while stream.ready_steps:
            if self.skips and not stream.steps_to_run(1):
                # The model on the same steps, for comparison.
                quiet = stream.quiet_steps
                assert np.array_equal(self.state, self.model.initial_states(1))
                self.scores += [self.model.silence_scores] * quiet
                self.detections += stream.skip(quiet)
            else:
                scores, self.state = self.model.step(stream.consume(1)[np.newaxis], self.state)
                self.inferences += 1
                self.scores.append(scores[0])
                self.detections += stream.apply(scores[0])


@pytest.mark.slow
@settings(max_examples=60)
@given(
    parts=parts,
    rate_hz=st.sampled_from(RATES),
    process_each=st.booleans(),
    threshold=st.sampled_from([None, 1e-9]),  # silence reaches the lower one
)
def test_skipping_silence_gives_the_result_of_running_everything(
    tiny: SpotterModel, parts: Sequence[Part], rate_hz: int, process_each: bool, threshold: float | None
) -> None:
    skipping, running = (
        Run(tiny, rate_hz, skips=skips, **({} if threshold is None else {"threshold": threshold}))
        for skips in (True, False)
    )
    for kind, count in parts:
        push(skipping.stream, kind, count, rate_hz)
        push(running.stream, kind, count, rate_hz)
        if process_each:
            skipping.process()
            running.process()
            assert skipping.stream.progress() == running.stream.progress()
    for run in (skipping, running):
        run.stream.finish()
        run.process()
        assert run.stream.finished
    assert np.array_equal(np.concatenate(skipping.scores), np.concatenate(running.scores))
    assert skipping.detections == running.detections
    assert skipping.stream.progress() == running.stream.progress()


@settings(max_examples=40)
@given(
    parts=parts,
    rate_hz=st.sampled_from(RATES),
    cuts=st.lists(st.integers(1, 30_000), min_size=1, max_size=30),
)
def test_zeros_and_counts_of_silence_are_resampled_to_the_same_samples(
    parts: Sequence[Part], rate_hz: int, cuts: list[int]
) -> None:
    counted, zeros, chunked = (Resampler(rate_hz, 16_000) for _ in range(3))
    outputs: list[list[np.ndarray]] = [[], [], []]
    for kind, count in parts:
        audio = samples_of(kind, count, rate_hz)
        pieces = counted.process_silence(count) if kind in ("silence", "zeros") else counted.process(audio)
        outputs[0].append(materialize(pieces))
        outputs[1].append(materialize(zeros.process(audio)))
        for piece in np.split(audio, np.cumsum(cuts)):
            outputs[2].append(materialize(chunked.process(piece)))
    for output, resampler in zip(outputs, (counted, zeros, chunked), strict=True):
        output.append(materialize(resampler.flush()))
    first, second, third = (np.concatenate(output) for output in outputs)
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)
    total = sum(count for _, count in parts)
    assert len(first) == pytest.approx(total * 16_000 / rate_hz, abs=1)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 44_100, 48_000, 192_000])
def test_resampling_with_silence_equals_plain_resampling(rate_hz: int) -> None:
    import soxr

    noise = np.random.default_rng(0).normal(0, 0.1, rate_hz + 77).astype(np.float32)
    audio = np.concatenate([noise, np.zeros(5 * rate_hz // 2, np.float32), noise])
    resampler = Resampler(rate_hz, 16_000)
    resampled = materialize([*resampler.process(audio), *resampler.flush()])
    plain = soxr.ResampleStream(rate_hz, 16_000, 1, dtype="float32", quality="HQ")
    expected = plain.resample_chunk(audio, last=True)
    np.testing.assert_allclose(resampled, expected, atol=1e-6)


@pytest.mark.parametrize("rate_hz", RATES)
def test_an_hour_of_silence_costs_at_most_one_receptive_field_of_inference(
    tiny: SpotterModel, rate_hz: int
) -> None:
    run = Run(tiny, rate_hz, skips=True)
    for _ in range(3):
        push(run.stream, "word", rate_hz // 2, rate_hz)
        run.process()
        before = run.inferences
        run.stream.push_silence(3600 * rate_hz)
        run.process()
        # The resampler adds up to 100 ms, and a whole second until its filter is at rest.
        receptive_field = -(-tiny.metadata.receptive_field_samples // tiny.metadata.step_samples)
        assert run.inferences - before <= receptive_field + 1 + (0 if rate_hz == 16_000 else 100)
    run.stream.finish()
    run.process()
    assert [detection.keyword for detection in run.detections] == ["mid"] * 3


def test_an_hour_of_silence_takes_no_time(tiny: SpotterModel) -> None:
    spotter = Spotter(tiny)
    spotter.feed(tiny_model.recording([(0.1, "low")], 0.5))
    begun_s = time.thread_time()
    for _ in range(1000):
        assert not spotter.feed_silence(3600 * 16_000)[1:]
    assert time.thread_time() - begun_s < 0.5  # 0.5 ms each; inference would take seconds
    assert spotter.progress().received_offset_ns == 1000 * 3600 * 10**9 + 5 * 10**8


@pytest.mark.parametrize("model", ["tiny", "default_model"])
def test_a_receptive_field_of_silence_leads_to_the_initial_state(
    request: pytest.FixtureRequest, model: str
) -> None:
    loaded: SpotterModel = request.getfixturevalue(model)
    meta = loaded.metadata
    steps = -(-meta.receptive_field_samples // meta.step_samples)
    silence = np.zeros((3, steps * meta.step_samples), np.float32)
    noise = np.random.default_rng(1).normal(0, 0.1, (3, 2 * silence.shape[1])).astype(np.float32)
    _, states = loaded.step(noise, loaded.initial_states(3))
    _, states = loaded.step(silence, states)
    assert np.array_equal(states, loaded.initial_states(3))
    scores, states = loaded.step(silence, states)
    assert np.array_equal(states, loaded.initial_states(3))
    assert np.array_equal(scores[0], np.tile(loaded.silence_scores, (steps, 1)))


@settings(max_examples=150)
@given(
    before=st.lists(st.sampled_from(["low", "mid", "high", ""]), max_size=20),
    thresholds=st.lists(st.sampled_from([1e-9, 0.2, 0.6]), min_size=3, max_size=3),
    scores=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.25005, 0.3]), min_size=3, max_size=3),
    refractory_ms=st.lists(st.sampled_from([0, 100, 1000, 60_000]), min_size=3, max_size=3),
    count=st.integers(1, 400),
)
def test_constant_scores_are_processed_at_once(
    tiny: SpotterModel,
    before: list[str],
    thresholds: list[float],
    scores: list[float],
    refractory_ms: list[float],
    count: int,
) -> None:
    names = tiny.metadata.keyword_names
    active = resolve_settings(
        tiny.metadata,
        [
            KeywordSetting(name, threshold, refractory)
            for name, threshold, refractory in zip(names, thresholds, refractory_ms, strict=True)
        ],
    )
    row = np.zeros(len(tiny.metadata.labels), np.float32)
    row[[keyword.class_index for keyword in active]] = scores
    at_once, one_by_one = Detector(tiny.metadata, active), Detector(tiny.metadata, active)
    for name in before:
        frame = np.zeros((1, len(row)), np.float32)
        if name:
            frame[0, tiny.metadata.labels.index(name)] = 0.9
        assert at_once.push(frame) == one_by_one.push(frame)
    assert at_once.push_constant(row, count) == one_by_one.push(np.tile(row, (count, 1)))
    assert at_once.snapshot() == one_by_one.snapshot()


def test_an_hour_of_silence_that_reaches_a_threshold_takes_little_time(tiny: SpotterModel) -> None:
    spotter = Spotter(tiny, keywords=[KeywordSetting("low", threshold=1e-30, refractory_ms=60_000)])
    begun_s = time.thread_time()
    assert len(spotter.feed_silence(3600 * 16_000)) == 60
    assert time.thread_time() - begun_s < 0.2  # frame by frame, it takes a second
