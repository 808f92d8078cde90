"""A stream that breaks anywhere and is resumed has the detections of the uninterrupted stream."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_spotter import (
    AudioFormat,
    Detection,
    Encoding,
    KeywordSetting,
    ResumeError,
    ResumePoint,
    Spotter,
    SpotterModel,
    StreamProgress,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_model
from support.tokens import sealed

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = [
    AudioFormat(Encoding.LINEAR16, 16_000),
    AudioFormat(Encoding.FLOAT32, 16_000),
    AudioFormat(Encoding.MULAW, 8000),
    AudioFormat(Encoding.LINEAR16, 44_100, 2),
]
SECONDS = 7
WORDS = [(0.02, "low"), (0.9, "mid"), (1.2, "high"), (2.3, "low"), (2.86, "low"), (3.97, "mid")]
WORDS += [(4.5, "high"), (5.0, "low"), (5.21, "mid"), (5.5, "mid"), (6.0, "mid"), (6.93, "low")]


def encoded(audio_format: AudioFormat) -> bytes:
    samples = tiny_model.recording(WORDS, SECONDS, rate_hz=audio_format.sample_rate_hz, noise=0.01)
    if audio_format.encoding is Encoding.FLOAT32:
        return samples.tobytes()
    if audio_format.encoding is Encoding.MULAW:
        # A coarse encoding is sufficient: the sign and the segment.
        magnitude = np.clip(np.log2(np.abs(samples) * 255 + 1) * 16, 0, 127).astype(np.uint8)
        return (~np.where(samples < 0, magnitude | 0x80, magnitude)).astype(np.uint8).tobytes()
    linear = (samples * 32767).astype("<i2")
    return np.repeat(linear, audio_format.channel_count).tobytes()


RECORDINGS = {audio_format: encoded(audio_format) for audio_format in FORMATS}


def uninterrupted(model: SpotterModel, audio_format: AudioFormat) -> list[Detection]:
    spotter = Spotter(model, audio_format=audio_format)
    return spotter.feed(RECORDINGS[audio_format]) + spotter.flush()


def same_as(detections: list[Detection]) -> list[Detection]:
    """Return the same detections, with confidences that compare up to rounding."""
    return [dataclasses.replace(d, confidence=pytest.approx(d.confidence, abs=1e-4)) for d in detections]


def resume_at(
    model: SpotterModel, audio_format: AudioFormat, progress: StreamProgress
) -> tuple[Spotter, bytes]:
    """Return a stream that resumes from there, and the audio that its client replays."""
    point = ResumePoint(progress.replay_offset_ns, progress.resume_token)
    replay_s, rest = divmod(progress.replay_offset_ns, 10**9)
    assert rest == 0
    replayed = RECORDINGS[audio_format][replay_s * audio_format.sample_rate_hz * audio_format.frame_bytes :]
    return Spotter(model, audio_format=audio_format, resume=point), replayed


@pytest.mark.parametrize("audio_format", FORMATS, ids=str)
def test_the_recording_has_enough_detections_for_these_tests(
    tiny: SpotterModel, audio_format: AudioFormat
) -> None:
    assert len(uninterrupted(tiny, audio_format)) >= 9


@pytest.mark.slow
@settings(max_examples=150)
@given(audio_format=st.sampled_from(FORMATS), data=st.data())
def test_a_stream_broken_anywhere_loses_and_repeats_no_detection(
    tiny: SpotterModel, audio_format: AudioFormat, data: st.DataObject
) -> None:
    expected = uninterrupted(tiny, audio_format)
    received: dict[str, Detection] = {}

    def receive(detections: list[Detection], decided_offset_ns: int = 0) -> None:
        for detection in detections:
            assert detection.end_sample * 62_500 >= decided_offset_ns
            received.setdefault(detection.id, detection)

    spotter, rest = Spotter(tiny, audio_format=audio_format), RECORDINGS[audio_format]
    decided_ns = 0
    for _ in range(data.draw(st.integers(1, 3))):
        processed = data.draw(st.integers(0, len(rest)))
        lost = data.draw(st.integers(0, len(rest) - processed))
        for start in range(0, processed, 7001):
            receive(spotter.feed(rest[start : min(start + 7001, processed)]), decided_ns)
        progress = spotter.progress()  # the last one that reaches the client
        assert progress.decided_offset_ns >= decided_ns
        receive(spotter.feed(rest[processed : processed + lost]), decided_ns)  # events that arrived after it
        spotter, rest = resume_at(tiny, audio_format, progress)
        decided_ns = progress.decided_offset_ns
        assert spotter.progress().decided_offset_ns == decided_ns
        assert spotter.progress().replay_offset_ns == progress.replay_offset_ns
    receive(spotter.feed(rest), decided_ns)
    receive(spotter.flush(), decided_ns)

    ordered = sorted(received.values(), key=lambda detection: int(detection.id.rsplit("-", 1)[1]))
    assert ordered == same_as(expected)


@pytest.mark.parametrize("audio_format", FORMATS, ids=str)
def test_resuming_after_the_end_returns_no_detection(tiny: SpotterModel, audio_format: AudioFormat) -> None:
    spotter = Spotter(tiny, audio_format=audio_format)
    spotter.feed(RECORDINGS[audio_format])
    spotter.flush()
    resumed, rest = resume_at(tiny, audio_format, spotter.progress())
    assert resumed.feed(rest) + resumed.flush() == []


@pytest.fixture
def progress(tiny: SpotterModel) -> StreamProgress:
    spotter = Spotter(tiny)
    spotter.feed(RECORDINGS[FORMATS[0]][: 2 * 16_000 * 3 + 4000])
    return spotter.progress()


def test_a_token_is_small(progress: StreamProgress) -> None:
    assert len(progress.resume_token) < 200
    assert progress.replay_offset_ns == 2 * 10**9


def test_a_token_with_any_one_bit_flipped_is_rejected(tiny: SpotterModel, progress: StreamProgress) -> None:
    for bit in range(8 * len(progress.resume_token)):
        token = bytearray(progress.resume_token)
        token[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ResumeError) as caught:
            Spotter(tiny, resume=ResumePoint(progress.replay_offset_ns, bytes(token)))
        assert caught.value.reason == "BAD_RESUME_TOKEN"


OLD, NEW = b"the key of yesterday", b"the key of today"


@pytest.mark.parametrize(
    ("written_with", "read_with", "is_accepted"),
    [
        ([OLD], [OLD], True),
        ([OLD], [NEW], False),
        ([], [NEW], False),
        ([OLD], [], False),
        # Key rotation: first all servers accept the new key, then sign with it, then drop the old one.
        ([OLD], [OLD, NEW], True),
        ([OLD, NEW], [OLD], True),
        ([OLD, NEW], [NEW, OLD], True),
        ([NEW, OLD], [OLD, NEW], True),
        ([NEW, OLD], [NEW], True),
        ([NEW, OLD], [OLD], False),
    ],
)
def test_a_token_is_accepted_if_and_only_if_its_key_is_known(
    tiny: SpotterModel, written_with: list[bytes], read_with: list[bytes], is_accepted: bool
) -> None:
    written = Spotter(tiny, resume_keys=written_with).progress()
    point = ResumePoint(written.replay_offset_ns, written.resume_token)
    if is_accepted:
        Spotter(tiny, resume=point, resume_keys=read_with)
        return
    with pytest.raises(ResumeError, match="another key"):
        Spotter(tiny, resume=point, resume_keys=read_with)


def test_public_information_about_a_model_cannot_sign_its_tokens(
    tiny: SpotterModel, progress: StreamProgress
) -> None:
    payload = progress.resume_token[18:]
    assert sealed(payload, tiny.resume_key) == progress.resume_token
    for known in (tiny.sha256.encode(), bytes.fromhex(tiny.sha256), b""):
        with pytest.raises(ResumeError):
            Spotter(tiny, resume=ResumePoint(progress.replay_offset_ns, sealed(payload, known)))


@given(token=st.binary(max_size=300))
def test_any_other_bytes_are_rejected(tiny: SpotterModel, token: bytes) -> None:
    with pytest.raises(ResumeError):
        Spotter(tiny, resume=ResumePoint(0, token))


def test_a_truncated_or_extended_token_is_rejected(tiny: SpotterModel, progress: StreamProgress) -> None:
    for token in (
        progress.resume_token[:-1],
        progress.resume_token + b" ",
        b"",
        progress.resume_token * 2000,
    ):
        with pytest.raises(ResumeError):
            Spotter(tiny, resume=ResumePoint(progress.replay_offset_ns, token))


@pytest.mark.parametrize("wrong_ns", [0, 1, 10**9, 2 * 10**9 + 1, -(10**9)])
def test_another_start_offset_is_rejected(
    tiny: SpotterModel, progress: StreamProgress, wrong_ns: int
) -> None:
    with pytest.raises(ResumeError, match="start at 2 s"):
        Spotter(tiny, resume=ResumePoint(wrong_ns, progress.resume_token))


@pytest.mark.parametrize(
    "options",
    [
        {"audio_format": AudioFormat(Encoding.LINEAR16, 8000)},
        {"audio_format": AudioFormat(Encoding.LINEAR16, 16_000, 2)},
        {"audio_format": AudioFormat(Encoding.FLOAT32, 16_000)},
        {"keywords": [KeywordSetting("low")]},
        {"keywords": [KeywordSetting("low", 0.7), KeywordSetting("mid"), KeywordSetting("high")]},
        {"keywords": [KeywordSetting("low", None, 100), KeywordSetting("mid"), KeywordSetting("high")]},
    ],
)
def test_another_configuration_is_rejected(
    tiny: SpotterModel, progress: StreamProgress, options: dict[str, Any]
) -> None:
    with pytest.raises(ResumeError, match="another model, audio format or keyword selection"):
        Spotter(tiny, resume=ResumePoint(progress.replay_offset_ns, progress.resume_token), **options)


def test_default_settings_may_be_stated_explicitly(tiny: SpotterModel, progress: StreamProgress) -> None:
    as_float32 = float(np.float32(0.6))  # as in `started`
    spelt_out = [KeywordSetting("high"), KeywordSetting("low", as_float32, 500), KeywordSetting("mid")]
    Spotter(tiny, keywords=spelt_out, resume=ResumePoint(progress.replay_offset_ns, progress.resume_token))


def test_another_model_is_rejected(tmp_path: Path, tiny: SpotterModel, progress: StreamProgress) -> None:
    document = tiny_model.metadata() | {"version": "1.0.1"}
    other = SpotterModel.load(tiny_model.build(tmp_path / "other.onnx", document=document))
    with pytest.raises(ResumeError, match="another key or model file"):
        Spotter(other, resume=ResumePoint(progress.replay_offset_ns, progress.resume_token))
    written = Spotter(tiny, resume_keys=[OLD]).progress()
    point = ResumePoint(written.replay_offset_ns, written.resume_token)
    with pytest.raises(ResumeError, match="another model"):
        Spotter(other, resume=point, resume_keys=[OLD])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=200)
@given(field=st.integers(1, 5), value=json_values)
def test_a_forged_token_is_rejected_or_harmless(
    tiny: SpotterModel, progress: StreamProgress, field: int, value: Any
) -> None:
    fields = json.loads(progress.resume_token[18:])
    fields[field] = value
    token = sealed(json.dumps(fields).encode(), tiny.resume_key)
    try:
        spotter = Spotter(tiny, resume=ResumePoint(progress.replay_offset_ns, token))
    except ResumeError:
        return
    detections = spotter.feed(RECORDINGS[FORMATS[0]]) + spotter.flush()
    assert all(0 <= d.start_sample <= d.end_sample for d in detections)
    after = spotter.progress()
    assert after.decided_offset_ns <= after.received_offset_ns


@pytest.mark.parametrize("frame", [1 << 50, (1 << 53) - 1])
def test_a_forged_offset_out_of_range_is_rejected(
    tiny: SpotterModel, progress: StreamProgress, frame: int
) -> None:
    fields = json.loads(progress.resume_token[18:])
    # The replay offset of the frame, as StreamState computes it.
    replay_s = (frame * 320 - (480 + 2 * 320) - 8000) // 16_000
    fields[1], fields[3] = replay_s, frame
    token = sealed(json.dumps(fields).encode(), tiny.resume_key)
    with pytest.raises(ResumeError, match="content of the resume token is invalid"):
        Spotter(tiny, resume=ResumePoint(replay_s * 10**9, token))


def test_a_forged_decided_offset_beyond_the_processed_audio_is_rejected(
    tiny: SpotterModel, progress: StreamProgress
) -> None:
    fields = json.loads(progress.resume_token[18:])
    fields[2] = (fields[3] + 1) * 320 + 1
    token = sealed(json.dumps(fields).encode(), tiny.resume_key)
    with pytest.raises(ResumeError, match="content of the resume token is invalid"):
        Spotter(tiny, resume=ResumePoint(progress.replay_offset_ns, token))
