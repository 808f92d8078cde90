from __future__ import annotations

import dataclasses
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import (
    ActiveKeyword,
    AudioError,
    AudioFormat,
    Detection,
    Encoding,
    SpotterModel,
    StreamState,
    offset_ns,
    score_recording,
)
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = 320
FLOAT_16K = AudioFormat(Encoding.FLOAT32, 16_000)
LINEAR_16K = AudioFormat(Encoding.LINEAR16, 16_000)
WORDS = [(0.3, "low"), (0.8, "mid"), (1.6, "high"), (2.35, "low")]
SAMPLES = tiny_model.recording(WORDS, 2.5)


class StreamDriver:
    """Runs a stream as a server does, and keeps the scores and detections."""

    def __init__(self, model: SpotterModel, stream: StreamState, steps_at_once: int = 5) -> None:
        self.model, self.stream, self.steps_at_once = model, stream, steps_at_once
        self.model_state = model.initial_states(1)
        self.scores = [np.zeros((0, len(model.metadata.labels)), np.float32)]
        self.detections: list[Detection] = []

    def process(self) -> None:
        while self.stream.ready_steps:
            if steps := self.stream.steps_to_run(self.steps_at_once):
                pcm = self.stream.consume(steps)
                scores, self.model_state = self.model.step(pcm[np.newaxis], self.model_state)
                self.scores.append(scores[0])
            else:
                self.scores.append(self.stream.consume_silence(self.stream.quiet_steps))
                self.model_state = self.model.initial_states(1)
            self.detections += self.stream.apply(self.scores[-1])

    def push(self, data: bytes) -> None:
        self.stream.push_audio(data)
        self.process()

    def finish(self) -> None:
        self.stream.finish()
        self.process()
        assert self.stream.finished


@pytest.fixture
def begin(tiny: SpotterModel, tiny_active: tuple[ActiveKeyword, ...]) -> Callable[..., StreamDriver]:
    def begin(audio_format: AudioFormat = FLOAT_16K, **options: int) -> StreamDriver:
        return StreamDriver(tiny, StreamState(tiny, audio_format, tiny_active), **options)

    return begin


def process(driver: StreamDriver, data: bytes, sizes: tuple[int, ...] = (1 << 30,)) -> list[Detection]:
    start, i = 0, 0
    while start < len(data):
        driver.push(data[start : start + sizes[i % len(sizes)]])
        start, i = start + sizes[i % len(sizes)], i + 1
    driver.finish()
    return driver.detections


def same_as(detections: list[Detection]) -> list[Detection]:
    """Return the same detections, with confidences that compare up to rounding."""
    return [dataclasses.replace(d, confidence=pytest.approx(d.confidence, abs=1e-4)) for d in detections]


@given(
    sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=6).filter(any),
    steps_at_once=st.integers(1, 60),
    length=st.integers(0, len(SAMPLES)),
)
def test_scores_and_detections_do_not_depend_on_the_chunks(
    tiny: SpotterModel, begin: Callable[..., StreamDriver], sizes: list[int], steps_at_once: int, length: int
) -> None:
    data = SAMPLES[:length].tobytes()
    chunked, whole = begin(steps_at_once=steps_at_once), begin()
    assert process(chunked, data, tuple(sizes)) == same_as(process(whole, data))
    scores = np.concatenate(chunked.scores)
    expected = score_recording(tiny, SAMPLES[:length])
    np.testing.assert_allclose(scores[: len(expected)], expected, atol=1e-4)


def test_one_sample_at_a_time_gives_the_same_result(
    tiny: SpotterModel, begin: Callable[..., StreamDriver]
) -> None:
    samples = SAMPLES[: 16_000 * 6 // 10]
    driver = begin(steps_at_once=1)
    detections = process(driver, samples.tobytes(), (4,))
    assert [detection.keyword for detection in detections] == ["low"]
    expected = score_recording(tiny, samples)
    np.testing.assert_allclose(np.concatenate(driver.scores)[: len(expected)], expected, atol=1e-4)


def test_the_words_are_detected_at_their_positions(begin: Callable[..., StreamDriver]) -> None:
    detections = process(begin(), SAMPLES.tobytes())
    assert [detection.keyword for detection in detections] == [name for _, name in WORDS]
    for detection, (start_s, _) in zip(detections, WORDS, strict=True):
        assert detection.start_sample / 16_000 == pytest.approx(start_s, abs=0.04)
        assert detection.end_sample / 16_000 == pytest.approx(start_s + 0.06, abs=0.04)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_words_are_detected_at_any_rate_and_in_any_encoding(
    begin: Callable[..., StreamDriver], rate_hz: int, encoding: Encoding
) -> None:
    samples = tiny_model.recording(WORDS, 2.5, rate_hz=rate_hz)
    if encoding is Encoding.FLOAT32:
        data = samples.tobytes()
    elif encoding is Encoding.LINEAR16:
        data = (samples * 32767).astype("<i2").tobytes()
    else:
        from earmark_spotter.audio import alaw_table, mulaw_table

        table = mulaw_table() if encoding is Encoding.MULAW else alaw_table()
        order = np.argsort(table)
        nearest = order[np.clip(np.searchsorted(table[order], samples), 0, 255)]
        data = nearest.astype(np.uint8).tobytes()
    detections = process(begin(AudioFormat(encoding, rate_hz)), data, (1999,))
    assert [detection.keyword for detection in detections] == [name for _, name in WORDS]
    for detection, (start_s, _) in zip(detections, WORDS, strict=True):
        assert detection.start_sample / 16_000 == pytest.approx(start_s, abs=0.04)


def test_a_word_at_the_very_end_is_detected_and_ends_with_the_audio(
    begin: Callable[..., StreamDriver],
) -> None:
    samples = tiny_model.recording([(0.95, "mid")], 1.0)  # the last 10 ms are missing
    (detection,) = process(begin(), samples.tobytes())
    assert detection.keyword == "mid"
    assert detection.end_sample <= 16_000
    assert detection.start_sample <= detection.end_sample


def test_an_empty_stream_has_no_detections(begin: Callable[..., StreamDriver]) -> None:
    driver = begin()
    assert driver.stream.ready_steps == 0
    driver.finish()
    assert driver.detections == []
    assert driver.stream.received_ns == 0


def test_a_finished_stream_accepts_no_input(begin: Callable[..., StreamDriver]) -> None:
    driver = begin()
    driver.finish()
    for push in (
        lambda: driver.stream.push_audio(b""),
        lambda: driver.stream.push_silence(1),
        lambda: driver.stream.push_samples(np.zeros(1, np.float32)),
        driver.stream.finish,
    ):
        with pytest.raises(RuntimeError, match="finished"):
            push()


def test_steps_that_are_not_ready_cannot_be_consumed(begin: Callable[..., StreamDriver]) -> None:
    stream = begin(LINEAR_16K).stream
    stream.push_audio(bytes(2 * (2 * STEP + 1)))
    assert stream.ready_steps == 2
    for count in (0, -1, 3):
        with pytest.raises(ValueError, match="2 are ready"):
            stream.consume(count)
    assert stream.consume(2).shape == (2 * STEP,)
    assert stream.ready_steps == 0


def test_a_chunk_of_whole_steps_is_not_copied(begin: Callable[..., StreamDriver]) -> None:
    data = SAMPLES[: 5 * STEP].tobytes()
    stream = begin().stream
    stream.push_audio(data)
    assert np.shares_memory(stream.consume(2), np.frombuffer(data, "<f4"))
    assert np.shares_memory(stream.consume(3), np.frombuffer(data, "<f4"))


@given(
    order=st.lists(st.tuples(st.booleans(), st.integers(0, 30_000)), max_size=6),
    rate_hz=st.sampled_from([8000, 16_000, 44_100]),
)
def test_silence_equals_zeros_sent_as_audio(
    begin: Callable[..., StreamDriver], order: list[tuple[bool, int]], rate_hz: int
) -> None:
    skipped, sent = (
        begin(AudioFormat(Encoding.FLOAT32, rate_hz)),
        begin(AudioFormat(Encoding.FLOAT32, rate_hz)),
    )
    words = tiny_model.recording(WORDS, 2.5, rate_hz=rate_hz)
    for is_silence, count in order:
        if is_silence:
            skipped.stream.push_silence(count)  # not processed at once, so that audio has to wait behind it
            sent.push(bytes(4 * count))
        else:
            skipped.stream.push_audio(words[:count].tobytes())
            sent.push(words[:count].tobytes())
        assert skipped.stream.received_ns == sent.stream.received_ns
    skipped.finish()
    sent.finish()
    assert skipped.detections == same_as(sent.detections)
    np.testing.assert_allclose(np.concatenate(skipped.scores), np.concatenate(sent.scores), atol=1e-4)


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_an_hour_of_silence_is_never_in_memory_at_once(
    begin: Callable[..., StreamDriver], rate_hz: int
) -> None:
    stream = begin(AudioFormat(Encoding.LINEAR16, rate_hz)).stream
    tracemalloc.start()
    try:
        stream.push_silence(3600 * rate_hz)
        stream.push_audio(bytes(2 * rate_hz))
        stream.finish()
        consumed = 0
        while ready := stream.ready_steps:
            consumed += stream.consume(min(ready, 50)).shape[0]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert consumed == pytest.approx(3601 * 16_000, abs=16_000)
    assert peak_bytes < 4_000_000
    assert stream.received_ns == 3601 * 10**9


def test_silence_inside_a_sample_is_rejected(begin: Callable[..., StreamDriver]) -> None:
    stream = begin(LINEAR_16K).stream
    stream.push_audio(b"\0\0\0")
    with pytest.raises(AudioError, match="A silence begins inside a sample"):
        stream.push_silence(10)
    with pytest.raises(AudioError, match="The audio ends inside a sample"):
        stream.finish()
    stream.push_audio(b"\0")
    stream.push_silence(10)
    stream.finish()


def test_negative_silence_is_rejected(begin: Callable[..., StreamDriver]) -> None:
    with pytest.raises(AudioError, match="-1 samples"):
        begin().stream.push_silence(-1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 20_000.0])
def test_invalid_samples_after_a_silence_are_rejected(begin: Callable[..., StreamDriver], bad: float) -> None:
    stream = begin().stream
    stream.push_silence(1 << 20)
    with pytest.raises(AudioError, match="full scale"):
        stream.push_audio(np.array([0, bad], "<f4").tobytes())


def test_progress_reports_the_position_of_the_stream(begin: Callable[..., StreamDriver]) -> None:
    driver = begin(LINEAR_16K)
    progress = driver.stream.progress()
    assert (progress.received_offset_ns, progress.decided_offset_ns, progress.replay_offset_ns) == (0, 0, 0)
    driver.push((SAMPLES[:38_720] * 32767).astype("<i2").tobytes())
    progress = driver.stream.progress()
    assert driver.stream.next_sample == 38_720
    assert progress.received_offset_ns == 2_420_000_000
    assert progress.decided_offset_ns == 2_380_000_000  # limited by the open candidate
    assert progress.replay_offset_ns == 1_000_000_000  # 2.42 s minus 70 ms and the margin, in whole seconds


@pytest.mark.slow
@given(sizes=st.lists(st.integers(100, 20_000), min_size=1, max_size=6))
def test_progress_never_decreases_and_no_detection_ends_before_it(
    begin: Callable[..., StreamDriver], sizes: list[int]
) -> None:
    driver = begin()
    data = SAMPLES.tobytes()
    start, i, seen = 0, 0, 0
    last = driver.stream.progress()
    while start < len(data):
        size = sizes[i % len(sizes)]
        driver.push(data[start : start + size])
        start, i = start + size, i + 1
        ends = [offset_ns(detection.end_sample, 16_000) for detection in driver.detections[seen:]]
        assert all(end >= last.decided_offset_ns for end in ends)
        seen = len(driver.detections)
        progress = driver.stream.progress()
        assert last.decided_offset_ns <= progress.decided_offset_ns <= progress.received_offset_ns
        assert last.replay_offset_ns <= progress.replay_offset_ns <= progress.decided_offset_ns
        assert progress.replay_offset_ns % 10**9 == 0
        last = progress
    driver.finish()
    ends = [offset_ns(detection.end_sample, 16_000) for detection in driver.detections[seen:]]
    assert all(end >= last.decided_offset_ns for end in ends)
    assert driver.stream.progress().decided_offset_ns <= 2_500_000_000
