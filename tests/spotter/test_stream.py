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


class Listener:
    """Drives a stream as a server does, and keeps what came out of the model."""

    def __init__(self, model: SpotterModel, stream: StreamState, steps_at_once: int = 5) -> None:
        self.model, self.stream, self.steps_at_once = model, stream, steps_at_once
        self.model_state = model.initial_states(1)
        self.scores = [np.zeros((0, len(model.metadata.labels)), np.float32)]
        self.detections: list[Detection] = []

    def listen(self) -> None:
        while ready := self.stream.ready_steps:
            pcm = self.stream.consume(min(ready, self.steps_at_once))
            scores, self.model_state = self.model.step(pcm[np.newaxis], self.model_state)
            self.scores.append(scores[0])
            self.detections += self.stream.apply(scores[0])

    def push(self, data: bytes) -> None:
        self.stream.push_audio(data)
        self.listen()

    def finish(self) -> None:
        self.stream.finish()
        self.listen()
        assert self.stream.finished


@pytest.fixture
def begin(tiny: SpotterModel, tiny_active: tuple[ActiveKeyword, ...]) -> Callable[..., Listener]:
    def begin(audio_format: AudioFormat = FLOAT_16K, **options: int) -> Listener:
        return Listener(tiny, StreamState(tiny, audio_format, tiny_active), **options)

    return begin


def listen_to(listener: Listener, data: bytes, sizes: tuple[int, ...] = (1 << 30,)) -> list[Detection]:
    start, i = 0, 0
    while start < len(data):
        listener.push(data[start : start + sizes[i % len(sizes)]])
        start, i = start + sizes[i % len(sizes)], i + 1
    listener.finish()
    return listener.detections


def same_as(detections: list[Detection]) -> list[Detection]:
    """The same detections, with confidences equal but for rounding."""
    return [dataclasses.replace(d, confidence=pytest.approx(d.confidence, abs=1e-4)) for d in detections]


@given(
    sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=6).filter(any),
    steps_at_once=st.integers(1, 60),
    length=st.integers(0, len(SAMPLES)),
)
def test_any_chunking_gives_the_scores_and_detections_of_one_pass(
    tiny: SpotterModel, begin: Callable[..., Listener], sizes: list[int], steps_at_once: int, length: int
) -> None:
    data = SAMPLES[:length].tobytes()
    chunked, whole = begin(steps_at_once=steps_at_once), begin()
    assert listen_to(chunked, data, tuple(sizes)) == same_as(listen_to(whole, data))
    scores = np.concatenate(chunked.scores)
    expected = score_recording(tiny, SAMPLES[:length])
    np.testing.assert_allclose(scores[: len(expected)], expected, atol=1e-4)


def test_one_sample_at_a_time_is_one_pass(tiny: SpotterModel, begin: Callable[..., Listener]) -> None:
    samples = SAMPLES[: 16_000 * 6 // 10]
    listener = begin(steps_at_once=1)
    detections = listen_to(listener, samples.tobytes(), (4,))
    assert [detection.keyword for detection in detections] == ["low"]
    expected = score_recording(tiny, samples)
    np.testing.assert_allclose(np.concatenate(listener.scores)[: len(expected)], expected, atol=1e-4)


def test_the_words_are_found_where_they_are(begin: Callable[..., Listener]) -> None:
    detections = listen_to(begin(), SAMPLES.tobytes())
    assert [detection.keyword for detection in detections] == [name for _, name in WORDS]
    for detection, (start_s, _) in zip(detections, WORDS, strict=True):
        assert detection.start_sample / 16_000 == pytest.approx(start_s, abs=0.04)
        assert detection.end_sample / 16_000 == pytest.approx(start_s + 0.06, abs=0.04)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_words_are_found_at_any_rate_and_in_any_encoding(
    begin: Callable[..., Listener], rate_hz: int, encoding: Encoding
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
    detections = listen_to(begin(AudioFormat(encoding, rate_hz)), data, (1999,))
    assert [detection.keyword for detection in detections] == [name for _, name in WORDS]
    for detection, (start_s, _) in zip(detections, WORDS, strict=True):
        assert detection.start_sample / 16_000 == pytest.approx(start_s, abs=0.04)


def test_a_word_at_the_very_end_is_decided_and_ends_with_the_audio(begin: Callable[..., Listener]) -> None:
    samples = tiny_model.recording([(0.95, "mid")], 1.0)  # its last 10 ms are cut off
    (detection,) = listen_to(begin(), samples.tobytes())
    assert detection.keyword == "mid"
    assert detection.end_sample <= 16_000
    assert detection.start_sample <= detection.end_sample


def test_a_stream_of_nothing_ends_with_nothing(begin: Callable[..., Listener]) -> None:
    listener = begin()
    assert listener.stream.ready_steps == 0
    listener.finish()
    assert listener.detections == []
    assert listener.stream.received_ns == 0


def test_after_its_end_a_stream_takes_nothing_more(begin: Callable[..., Listener]) -> None:
    listener = begin()
    listener.finish()
    for push in (
        lambda: listener.stream.push_audio(b""),
        lambda: listener.stream.push_silence(1),
        lambda: listener.stream.push_samples(np.zeros(1, np.float32)),
        listener.stream.finish,
    ):
        with pytest.raises(RuntimeError, match="finished"):
            push()


def test_steps_that_are_not_ready_cannot_be_taken(begin: Callable[..., Listener]) -> None:
    stream = begin(LINEAR_16K).stream
    stream.push_audio(bytes(2 * (2 * STEP + 1)))
    assert stream.ready_steps == 2
    for count in (0, -1, 3):
        with pytest.raises(ValueError, match="2 are ready"):
            stream.consume(count)
    assert stream.consume(2).shape == (2 * STEP,)
    assert stream.ready_steps == 0


def test_a_chunk_of_whole_steps_is_handed_on_without_a_copy(begin: Callable[..., Listener]) -> None:
    data = SAMPLES[: 5 * STEP].tobytes()
    stream = begin().stream
    stream.push_audio(data)
    assert np.shares_memory(stream.consume(2), np.frombuffer(data, "<f4"))
    assert np.shares_memory(stream.consume(3), np.frombuffer(data, "<f4"))


@given(
    order=st.lists(st.tuples(st.booleans(), st.integers(0, 30_000)), max_size=6),
    rate_hz=st.sampled_from([8000, 16_000, 44_100]),
)
def test_silence_told_is_silence_sent(
    begin: Callable[..., Listener], order: list[tuple[bool, int]], rate_hz: int
) -> None:
    told, sent = begin(AudioFormat(Encoding.FLOAT32, rate_hz)), begin(AudioFormat(Encoding.FLOAT32, rate_hz))
    words = tiny_model.recording(WORDS, 2.5, rate_hz=rate_hz)
    for is_silence, count in order:
        if is_silence:
            told.stream.push_silence(count)  # not listened to at once: audio must wait behind it
            sent.push(bytes(4 * count))
        else:
            told.stream.push_audio(words[:count].tobytes())
            sent.push(words[:count].tobytes())
        assert told.stream.received_ns == sent.stream.received_ns
    told.finish()
    sent.finish()
    assert told.detections == same_as(sent.detections)
    np.testing.assert_allclose(np.concatenate(told.scores), np.concatenate(sent.scores), atol=1e-4)


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_an_hour_of_silence_is_never_held_at_once(begin: Callable[..., Listener], rate_hz: int) -> None:
    stream = begin(AudioFormat(Encoding.LINEAR16, rate_hz)).stream
    tracemalloc.start()
    try:
        stream.push_silence(3600 * rate_hz)
        stream.push_audio(bytes(2 * rate_hz))
        stream.finish()
        taken = 0
        while ready := stream.ready_steps:
            taken += stream.consume(ready).shape[0]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken == pytest.approx(3601 * 16_000, abs=16_000)
    assert peak_bytes < 4_000_000
    assert stream.received_ns == 3601 * 10**9


def test_silence_inside_a_sample_is_refused(begin: Callable[..., Listener]) -> None:
    stream = begin(LINEAR_16K).stream
    stream.push_audio(b"\0\0\0")
    with pytest.raises(AudioError, match="inside a sample"):
        stream.push_silence(10)
    with pytest.raises(AudioError, match="inside a sample"):
        stream.finish()
    stream.push_audio(b"\0")
    stream.push_silence(10)
    stream.finish()


def test_negative_silence_is_refused(begin: Callable[..., Listener]) -> None:
    with pytest.raises(AudioError, match="-1 samples"):
        begin().stream.push_silence(-1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 20_000.0])
def test_bad_samples_are_refused_even_behind_a_silence(begin: Callable[..., Listener], bad: float) -> None:
    stream = begin().stream
    stream.push_silence(1 << 20)
    with pytest.raises(AudioError, match="full scale"):
        stream.push_audio(np.array([0, bad], "<f4").tobytes())


def test_progress_tells_how_far_the_stream_has_come(begin: Callable[..., Listener]) -> None:
    listener = begin(LINEAR_16K)
    progress = listener.stream.progress()
    assert (progress.received_offset_ns, progress.decided_offset_ns, progress.replay_offset_ns) == (0, 0, 0)
    listener.push((SAMPLES[:38_720] * 32767).astype("<i2").tobytes())
    progress = listener.stream.progress()
    assert listener.stream.next_sample == 38_720
    assert progress.received_offset_ns == 2_420_000_000
    assert progress.decided_offset_ns == 2_380_000_000  # held back by the candidate that is still open
    assert progress.replay_offset_ns == 1_000_000_000  # 2.42 s less 70 ms and the margin, in whole seconds


@given(sizes=st.lists(st.integers(100, 20_000), min_size=1, max_size=6))
def test_progress_never_goes_back_and_keeps_its_promise(
    begin: Callable[..., Listener], sizes: list[int]
) -> None:
    listener = begin()
    data = SAMPLES.tobytes()
    start, i, seen = 0, 0, 0
    last = listener.stream.progress()
    while start < len(data):
        size = sizes[i % len(sizes)]
        listener.push(data[start : start + size])
        start, i = start + size, i + 1
        ends = [offset_ns(detection.end_sample, 16_000) for detection in listener.detections[seen:]]
        assert all(end >= last.decided_offset_ns for end in ends)
        seen = len(listener.detections)
        progress = listener.stream.progress()
        assert last.decided_offset_ns <= progress.decided_offset_ns <= progress.received_offset_ns
        assert last.replay_offset_ns <= progress.replay_offset_ns <= progress.decided_offset_ns
        assert progress.replay_offset_ns % 10**9 == 0
        last = progress
    listener.finish()
    ends = [offset_ns(detection.end_sample, 16_000) for detection in listener.detections[seen:]]
    assert all(end >= last.decided_offset_ns for end in ends)
    assert listener.stream.progress().decided_offset_ns <= 2_500_000_000
