from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import (
    AudioError,
    AudioFormat,
    Encoding,
    KeywordError,
    KeywordSetting,
    Spotter,
    SpotterModel,
    classify,
    score_recording,
)
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [(0.3, "low"), (0.9, "mid"), (1.5, "high")]
SAMPLES = tiny_model.recording(WORDS, 2.0)
NAMES = [name for _, name in WORDS]


def detected(spotter: Spotter, *chunks: bytes | np.ndarray) -> list[str]:
    detections = [detection for chunk in chunks for detection in spotter.feed(chunk)]
    return [detection.keyword for detection in detections + spotter.flush()]


def test_load_feed_flush(tiny_model_path: Path) -> None:
    spotter = Spotter.load(tiny_model_path)
    assert detected(spotter, (SAMPLES * 32767).astype("<i2").tobytes()) == NAMES


def test_samples_may_be_fed_instead_of_bytes(tiny: SpotterModel) -> None:
    assert detected(Spotter(tiny), SAMPLES) == NAMES
    assert detected(Spotter(tiny), SAMPLES[:9001], SAMPLES[9001:]) == NAMES
    stereo = AudioFormat(Encoding.FLOAT32, 16_000, 2)
    assert detected(Spotter(tiny, audio_format=stereo), np.stack([SAMPLES, SAMPLES], axis=1)) == NAMES


def test_only_the_requested_keywords_are_detected(tiny: SpotterModel) -> None:
    assert detected(Spotter(tiny, keywords=[KeywordSetting("mid")]), SAMPLES) == ["mid"]
    with pytest.raises(KeywordError):
        Spotter(tiny, keywords=[KeywordSetting("nonsense")])


def test_streams_of_one_model_are_independent(tiny: SpotterModel) -> None:
    one, other = Spotter(tiny), Spotter(tiny)
    found: dict[Spotter, list[str]] = {one: [], other: []}
    reversed_words = tiny_model.recording([(0.3, "high"), (0.9, "mid"), (1.5, "low")], 2.0)
    for start in range(0, len(SAMPLES), 1600):
        for spotter, samples in ((one, SAMPLES), (other, reversed_words)):
            found[spotter] += [d.keyword for d in spotter.feed(samples[start : start + 1600])]
    assert found[one] == NAMES
    assert found[other] == NAMES[::-1]


def test_feeding_silence_advances_the_offsets(tiny: SpotterModel) -> None:
    spotter = Spotter(tiny)
    spotter.feed_silence(16_000)
    spotter.feed(SAMPLES)
    assert spotter.progress().received_offset_ns == 3 * 10**9
    direct = Spotter(tiny)
    (first, *_) = direct.feed(SAMPLES)
    delayed = Spotter(tiny)
    delayed.feed_silence(16_000)
    (first_delayed, *_) = delayed.feed(SAMPLES)
    assert first_delayed.start_sample == first.start_sample + 16_000


def test_nothing_is_detected_at_the_start_of_a_stream(tiny: SpotterModel) -> None:
    assert detected(Spotter(tiny), np.zeros(320, np.float32)) == []
    assert detected(Spotter(tiny), SAMPLES[:1000]) == []


def test_a_stream_that_ends_inside_a_sample_is_rejected(tiny: SpotterModel) -> None:
    spotter = Spotter(tiny)
    spotter.feed(b"\0\0\0")
    with pytest.raises(AudioError, match="inside a sample"):
        spotter.flush()


@given(length=st.integers(0, 40_000))
def test_the_scores_cover_the_whole_recording(tiny: SpotterModel, length: int) -> None:
    samples = np.zeros(length, np.float32)
    scores = score_recording(tiny, samples)
    assert scores.shape == (-(-length // 320), 5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", list(tiny_model.TONES_HZ))
@pytest.mark.parametrize("before_s", [0.0, 0.5])
@pytest.mark.parametrize("after_s", [0.0, 0.5])
def test_a_clip_is_classified_wherever_its_word_lies(
    tiny: SpotterModel, name: str, before_s: float, after_s: float
) -> None:
    clip = tiny_model.recording([(before_s, name)], before_s + 0.06 + after_s)
    scores = classify(tiny, clip)
    assert scores.shape == (5,)
    assert scores.sum() == pytest.approx(1, abs=1e-4)
    assert tiny.metadata.labels[int(scores.argmax())] == name


@pytest.mark.parametrize("length", [0, 1, 319, 320, 321])
def test_a_clip_may_be_shorter_than_a_step(tiny: SpotterModel, length: int) -> None:
    scores = classify(tiny, np.zeros(length, np.float32))
    assert tiny.metadata.labels[int(scores.argmax())] == "_silence_"


def test_errors_have_one_root_and_stable_reasons() -> None:
    from earmark_spotter import errors

    kinds = {kind.__name__: kind.reason for kind in errors.SpotterError.__subclasses__()}
    assert kinds == {
        "AudioError": "BAD_AUDIO",
        "EncodingError": "UNSUPPORTED_ENCODING",
        "SampleRateError": "UNSUPPORTED_SAMPLE_RATE",
        "KeywordError": "UNKNOWN_KEYWORD",
        "ThresholdError": "BAD_THRESHOLD",
        "TooLongError": "MESSAGE_TOO_LARGE",
        "ResumeError": "BAD_RESUME_TOKEN",
        "ModelError": "BAD_MODEL",
    }


def test_importing_the_spotter_loads_no_heavy_library() -> None:
    import subprocess
    import sys

    heavy = {"onnxruntime", "soxr", "soundfile", "torch", "grpc"}
    code = f"import sys, earmark_spotter; print({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "set()"
