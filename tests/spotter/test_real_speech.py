"""Real speech in the audio formats that clients send; skipped where there is no data."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import soxr
from earmark_spotter import (
    AudioFormat,
    Detection,
    Encoding,
    KeywordSetting,
    ResumePoint,
    Spotter,
    SpotterModel,
    read_recording,
)

if TYPE_CHECKING:
    from pathlib import Path

CLIPS_PER_KEYWORD = 2
SUBTYPES = {
    Encoding.LINEAR16: "PCM_16",
    Encoding.FLOAT32: "FLOAT",
    Encoding.MULAW: "ULAW",
    Encoding.ALAW: "ALAW",
}


@pytest.fixture(scope="module")
def speech(default_model: SpotterModel, data_dir: Path) -> np.ndarray:
    """Return keyword clips with half a second of soft noise between them, float32 [n] at 16 kHz."""
    rng = np.random.default_rng(0)
    pieces = []
    for name in default_model.metadata.keyword_names:
        for path in sorted((data_dir / "speech_commands" / name).glob("*.opus"))[:CLIPS_PER_KEYWORD]:
            samples, rate_hz = read_recording(path)
            assert rate_hz == 16_000
            pieces += [samples, rng.normal(0, 1e-3, 8000).astype(np.float32)]
    return np.concatenate(pieces)


def sent_as(speech: np.ndarray, audio_format: AudioFormat) -> bytes:
    """Return the recording as bytes in the given format."""
    samples = soxr.resample(speech, 16_000, audio_format.sample_rate_hz, quality="VHQ")
    buffer = io.BytesIO()
    subtype = SUBTYPES[audio_format.encoding]
    soundfile.write(buffer, samples, audio_format.sample_rate_hz, format="RAW", subtype=subtype)
    return buffer.getvalue()


def detect(model: SpotterModel, audio_format: AudioFormat, data: bytes) -> list[Detection]:
    spotter = Spotter(model, audio_format=audio_format, keywords=eager(model))
    chunk_bytes = audio_format.sample_rate_hz // 10 * audio_format.frame_bytes + 1
    detections = []
    for start in range(0, len(data), chunk_bytes):
        detections += spotter.feed(data[start : start + chunk_bytes])
    return detections + spotter.flush()


def eager(model: SpotterModel) -> list[KeywordSetting]:
    return [KeywordSetting(name, threshold=0.5) for name in model.metadata.keyword_names]


@pytest.fixture(scope="module")
def reference(default_model: SpotterModel, speech: np.ndarray) -> list[Detection]:
    audio_format = AudioFormat(Encoding.FLOAT32, 16_000)
    return detect(default_model, audio_format, sent_as(speech, audio_format))


def test_recall_on_real_speech_is_high(
    default_model: SpotterModel, speech: np.ndarray, reference: list[Detection]
) -> None:
    word_count = CLIPS_PER_KEYWORD * len(default_model.metadata.keyword_names)
    assert len(reference) > 0.85 * word_count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "rate_hz", "share"),
    [
        (Encoding.LINEAR16, 16_000, 0.95),
        (Encoding.LINEAR16, 44_100, 0.95),
        (Encoding.LINEAR16, 48_000, 0.95),
        (Encoding.FLOAT32, 48_000, 0.95),
        (Encoding.MULAW, 16_000, 0.85),
        (Encoding.ALAW, 16_000, 0.85),
        (Encoding.LINEAR16, 8000, 0.8),
        (Encoding.MULAW, 8000, 0.75),
        (Encoding.ALAW, 8000, 0.75),
    ],
)
def test_detections_in_real_speech_do_not_depend_on_the_audio_format(
    default_model: SpotterModel,
    speech: np.ndarray,
    reference: list[Detection],
    encoding: Encoding,
    rate_hz: int,
    share: float,
) -> None:
    # The 8 kHz and 8 bits of a telephone degrade speech, so some words are missed.
    audio_format = AudioFormat(encoding, rate_hz)
    detections = detect(default_model, audio_format, sent_as(speech, audio_format))
    again = [
        any(
            found.keyword == wanted.keyword and abs(found.end_sample - wanted.end_sample) <= 3200
            for found in detections
        )
        for wanted in reference
    ]
    assert np.mean(again) >= share


@pytest.mark.slow
@pytest.mark.parametrize(
    "audio_format",
    [AudioFormat(Encoding.LINEAR16, 16_000), AudioFormat(Encoding.MULAW, 8000)],
    ids=["16 kHz", "telephone"],
)
def test_a_broken_stream_of_real_speech_resumes_exactly(
    default_model: SpotterModel, speech: np.ndarray, audio_format: AudioFormat
) -> None:
    data = sent_as(speech[: 16 * 16_000], audio_format)
    expected = detect(default_model, audio_format, data)
    assert expected
    for broken_at in range(1, len(data), len(data) // 7):
        spotter = Spotter(default_model, audio_format=audio_format, keywords=eager(default_model))
        received = {detection.id: detection for detection in spotter.feed(data[:broken_at])}
        progress = spotter.progress()
        point = ResumePoint(progress.replay_offset_ns, progress.resume_token)
        resumed = Spotter(
            default_model, audio_format=audio_format, keywords=eager(default_model), resume=point
        )
        replay_s = progress.replay_offset_ns // 10**9
        rest = data[replay_s * audio_format.sample_rate_hz * audio_format.frame_bytes :]
        for detection in resumed.feed(rest) + resumed.flush():
            received.setdefault(detection.id, detection)
        assert list(received) == [detection.id for detection in expected]
        for detection in expected:
            assert received[detection.id].end_sample == detection.end_sample
