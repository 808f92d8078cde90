"""The levels of detections, with signals of known level."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel
from earmark_spotter.level_meter import LevelMeter
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_model

if TYPE_CHECKING:
    from earmark_spotter import Detection

RATE_HZ = 16_000
FLOAT = AudioFormat(Encoding.FLOAT32, RATE_HZ)
SECOND = RATE_HZ
RANDOM = np.random.default_rng(7)
NOISE = RANDOM.normal(0, 1, 3 * SECOND).astype(np.float32)


def sine(amplitude: float, seconds: float) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * 400 * time_s)).astype(np.float32)


def measure(pieces: list[np.ndarray | int], start: int, end: int) -> tuple[float | None, float | None]:
    meter = LevelMeter(RATE_HZ, 0)
    meter.extend(pieces)
    return meter.levels(start, end, SECOND)


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.01])
def test_the_level_of_a_sine(amplitude: float) -> None:
    level, snr = measure([SECOND, sine(amplitude, 1)], SECOND, 2 * SECOND)
    assert level == pytest.approx(20 * math.log10(amplitude) - 3.01, abs=0.051)
    assert snr == pytest.approx(level + 100, abs=0.051)


def test_the_level_of_a_square_wave_at_full_scale_is_zero() -> None:
    square = np.tile(np.array([1, -1], np.float32), SECOND // 2)
    assert measure([square], 0, SECOND) == (0.0, None)


def test_digital_silence_has_the_lowest_level() -> None:
    assert measure([3 * SECOND], SECOND, 2 * SECOND) == (-100.0, 0.0)


@pytest.mark.parametrize("snr_db", [0, 6, 20, 40])
def test_the_signal_to_noise_ratio(snr_db: float) -> None:
    noise = NOISE * 0.003
    word = sine(math.sqrt(2) * 0.003 * 10 ** (snr_db / 20), 1)
    audio = noise.copy()
    audio[SECOND : 2 * SECOND] = word
    _, measured = measure([audio], SECOND, 2 * SECOND)
    # The quietest 100 ms of noise are a little below its mean.
    assert measured is not None
    assert snr_db <= measured <= snr_db + 1


def test_speech_before_the_word_is_no_noise() -> None:
    audio = NOISE * 0.001
    alone = measure([audio], SECOND, 2 * SECOND)
    audio[: SECOND - 3200] += sine(0.5, 0.8)
    audio[SECOND - 1600 : SECOND] += sine(0.5, 0.1)
    _, snr = measure([audio], SECOND, 2 * SECOND)
    assert alone[1] is not None
    assert snr == pytest.approx(alone[1], abs=1)


@pytest.mark.parametrize("samples", [0, 800, 1500])
def test_too_little_audio_before_the_word_has_no_noise(samples: int) -> None:
    level, snr = measure([NOISE], samples, samples + SECOND)
    assert level is not None
    assert snr is None


def test_no_audio_has_no_level() -> None:
    assert measure([], 0, 100) == (None, None)


@given(
    st.lists(st.one_of(st.integers(1, 5000), st.integers(-30_000, -1)), min_size=1, max_size=20),
    st.integers(0, 40_000),
    st.integers(0, 20_000),
    st.integers(0, 40_000),
)
def test_levels_do_not_depend_on_the_pieces(lengths: list[int], start: int, length: int, old: int) -> None:
    """Negative lengths are silence, which is given as a count; the reference gets everything as samples."""
    pieces: list[np.ndarray | int] = [-n if n < 0 else NOISE[:n] for n in lengths]
    whole = np.concatenate([np.zeros(p, np.float32) if isinstance(p, int) else p for p in pieces])
    meter = LevelMeter(RATE_HZ, 0)
    for piece in pieces:
        meter.extend([piece])
        meter.discard_before(min(old, start - SECOND))
    assert meter.levels(start, start + length, SECOND) == measure([whole], start, start + length)


def detections(model: SpotterModel, audio: np.ndarray, chunk: int) -> list[Detection]:
    spotter = Spotter(model, audio_format=FLOAT)
    found = itertools.chain.from_iterable(
        spotter.feed(audio[start : start + chunk]) for start in range(0, len(audio), chunk)
    )
    return [*found, *spotter.flush()]


def test_a_detection_has_the_level_of_its_word(tiny: SpotterModel) -> None:
    audio = tiny_model.recording([(1.0, "low"), (2.0, "mid")], 3.0)
    found = detections(tiny, audio, 1600)
    for one in found:
        word = audio[one.start_sample // 160 * 160 : one.end_sample // 160 * 160].astype(np.float64)
        assert one.level_dbfs == pytest.approx(10 * math.log10(np.mean(word**2)), abs=0.051)
        assert one.snr_db is not None
        assert one.snr_db > 10
    quieter = detections(tiny, audio * np.float32(0.5), 777)
    assert [(a.level_dbfs or 0) - (b.level_dbfs or 0) for a, b in zip(found, quieter, strict=True)] == [
        pytest.approx(6.02, abs=0.11)
    ] * 2


def test_a_long_stream_keeps_little() -> None:
    meter = LevelMeter(RATE_HZ, 0)
    position = 0
    for second in range(600):
        silence = 3600 * SECOND if second % 100 == 0 else 0
        meter.extend([NOISE[:SECOND], silence])
        position += SECOND + silence
        meter.discard_before(position - 2 * SECOND)
    assert sum(len(one) for one in meter._energies if not isinstance(one, int)) < 1_000
