"""The bundled model has the properties that streaming depends on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import soxr
from earmark_spotter import AudioFormat, Encoding, KeywordSetting, Spotter, SpotterModel, score_recording
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO = Path(__file__).parents[2] / "client" / "earmark_cli" / "samples" / "demo.flac"
NOISE = np.random.default_rng(0).normal(0, 0.05, 4 * 16_000).astype(np.float32)


@settings(max_examples=15)
@given(steps=st.lists(st.integers(1, 30), min_size=1, max_size=6), batch=st.integers(1, 5))
def test_scores_do_not_depend_on_chunks_and_batches(
    default_model: SpotterModel, steps: list[int], batch: int
) -> None:
    expected = score_recording(default_model, NOISE)
    state = default_model.initial_states(batch)
    scores, start, i = [], 0, 0
    while start < len(NOISE):
        piece = NOISE[start : start + steps[i % len(steps)] * default_model.metadata.step_samples]
        piece = np.pad(piece, (0, -len(piece) % default_model.metadata.step_samples))
        found, state = default_model.step(np.tile(piece, (batch, 1)), state)
        scores.append(found[-1])
        start, i = start + len(piece), i + 1
    np.testing.assert_allclose(np.concatenate(scores), expected, atol=1e-4)


def test_a_score_does_not_depend_on_audio_before_its_receptive_field(default_model: SpotterModel) -> None:
    meta = default_model.metadata
    forgotten = -(-meta.receptive_field_samples // meta.step_samples) * meta.step_samples
    other = NOISE.copy()
    other[:16_000] = np.random.default_rng(1).uniform(-1, 1, 16_000)
    one, two = score_recording(default_model, NOISE), score_recording(default_model, other)
    first = (16_000 + forgotten) // meta.frame_samples
    np.testing.assert_allclose(one[first:], two[first:], atol=1e-4)
    assert np.abs(one - two).max() > 1e-3


def test_digital_silence_does_not_change_the_initial_state(default_model: SpotterModel) -> None:
    state = default_model.initial_states(1)
    silence = np.zeros((1, 2 * default_model.metadata.sample_rate_hz), np.float32)
    scores, after = default_model.step(silence, state)
    scale = 1 + np.abs(state).max()
    np.testing.assert_allclose(after / scale, state / scale, atol=1e-4)
    np.testing.assert_allclose(scores[0], np.broadcast_to(scores[0, 0], scores[0].shape), atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng, n: np.zeros(n),
        lambda rng, n: rng.normal(0, 1e-3, n),
        lambda rng, n: rng.normal(0, 0.1, n),
        lambda rng, n: np.sin(2 * np.pi * 440 * np.arange(n) / 16_000),
        lambda rng, n: np.where(np.arange(n) % 16_000, 0.0, 1.0),
        lambda rng, n: np.full(n, 0.5),
    ],
    ids=["silence", "soft noise", "loud noise", "tone", "clicks", "offset"],
)
def test_nothing_is_detected_in_audio_without_speech(
    default_model: SpotterModel, make: Callable[[np.random.Generator, int], np.ndarray]
) -> None:
    samples = make(np.random.default_rng(0), 10 * 16_000).astype(np.float32)
    spotter = Spotter(default_model)
    assert spotter.feed(samples) + spotter.flush() == []


@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0, 16.0])
def test_no_allowed_level_breaks_a_stream(default_model: SpotterModel, level: float) -> None:
    extreme = np.random.default_rng(0).uniform(-level, level, 32_000).astype(np.float32)
    scores = score_recording(default_model, np.concatenate([extreme, NOISE]))
    assert np.isfinite(scores).all()
    clean = score_recording(default_model, NOISE)
    np.testing.assert_allclose(scores[-50:], clean[-50:], atol=1e-4)


def test_every_keyword_can_be_requested(default_model: SpotterModel) -> None:
    for name in default_model.metadata.keyword_names:
        Spotter(default_model, keywords=[KeywordSetting(name)])
    assert default_model.metadata.sample_rate_hz == 16_000
    assert default_model.metadata.training.sources


def demo_words(model: SpotterModel, rate_hz: int, encoding: Encoding) -> list[str]:
    """Return the keywords that are detected in the demo recording at the given rate and encoding."""
    speech, speech_rate_hz = soundfile.read(DEMO, dtype="float32")
    samples = soxr.resample(speech, speech_rate_hz, rate_hz)
    subtype = {Encoding.LINEAR16: "PCM_16", Encoding.MULAW: "ULAW", Encoding.ALAW: "ALAW"}[encoding]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="RAW", subtype=subtype)
    spotter = Spotter(model, audio_format=AudioFormat(encoding, rate_hz))
    return [d.keyword for d in (*spotter.feed(buffer.getvalue()), *spotter.flush())]


@pytest.mark.parametrize("encoding", [Encoding.LINEAR16, Encoding.MULAW, Encoding.ALAW])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_the_keywords_do_not_depend_on_the_audio_format(
    default_model: SpotterModel, rate_hz: int, encoding: Encoding
) -> None:
    said = json.loads(DEMO.with_suffix(".json").read_text())["said"]
    assert demo_words(default_model, rate_hz, encoding) == [one["keyword"] for one in said if one["keyword"]]
