"""Simulated rooms, as impulse responses and as mel power spectra."""

from __future__ import annotations

import numpy as np
import pytest
from earmark_training.data import spectral_rooms
from earmark_training.data.examples import band_centers_hz
from earmark_training.data.front_end import FrontEnd
from earmark_training.data.rooms import draw_room, impulse_response, reverberate
from earmark_training.data.surroundings import loudspeaker, place_voice

RATE = 16_000


def decay_seconds(response: np.ndarray) -> float:
    """Return the time for 60 dB, from the decay between -5 and -25 dB of the energy that is still to come."""
    energy = np.cumsum(np.square(response.astype(float))[::-1])[::-1]
    level_db = 10 * np.log10(energy / energy[0] + 1e-12)
    return float(np.argmax(level_db < -25) - np.argmax(level_db < -5)) * 3 / RATE


@pytest.mark.parametrize("rt60", [0.3, 0.6, 0.9])
def test_a_room_decays_in_about_the_time_asked_for(rt60: float):
    rng = np.random.default_rng(0)
    rooms = [draw_room(rng, (rt60, rt60), (0.5, 4.0)) for _ in range(30)]
    assert all(0.5 <= room.distance <= 4.0 for room in rooms)
    times = [decay_seconds(impulse_response(rng, room)) for room in rooms]
    assert 0.65 * rt60 <= np.median(times) <= 1.2 * rt60


def test_the_direct_sound_comes_first_and_farther_rooms_are_more_reverberant():
    rng = np.random.default_rng(1)
    shares = []
    for distance in (0.5, 4.0):
        responses = [
            impulse_response(rng, draw_room(rng, (0.5, 0.5), (distance - 0.05, distance + 0.05)))
            for _ in range(20)
        ]
        assert all(r[0] == pytest.approx(1.0, rel=0.2) for r in responses)
        shares.append(np.median([np.square(r[:40]).sum() / np.square(r).sum() for r in responses]))
    assert shares[0] > 3 * shares[1]


def test_a_room_keeps_the_length_and_a_bare_one_changes_nothing():
    samples = np.random.default_rng(2).standard_normal(5_000).astype(np.float32)
    np.testing.assert_allclose(reverberate(samples, np.ones(1, np.float32)), samples, atol=1e-5)
    assert len(reverberate(samples, np.ones(900, np.float32))) == len(samples)


def test_a_voice_stays_within_full_scale_and_keeps_its_level_in_a_loudspeaker():
    rng = np.random.default_rng(3)
    samples = (0.1 * rng.standard_normal(RATE)).astype(np.float32)
    for _ in range(20):
        placed, speed = place_voice(rng, samples)
        assert np.abs(placed).max() <= 1
        assert len(placed) == int(len(samples) / speed)
        played = loudspeaker(rng, samples)
        assert np.square(played).mean() == pytest.approx(np.square(samples).mean(), rel=0.01)


def test_a_spectrum_in_a_room_keeps_its_level_and_rings_on():
    rng = np.random.default_rng(4)
    power = np.full((300, 40), 1e-9, np.float32)
    power[100:110] = 1.0
    before = power.mean()
    spectral_rooms.reverberate(rng, power, np.full(40, 4, np.float32), 0.01)
    assert power.mean() == pytest.approx(before, rel=1e-3)
    after = [power[i : i + 10].mean() for i in (110, 130, 150)]
    assert after[0] > after[1] > after[2] > power[:100].mean()


def test_a_telephone_leaves_the_middle_and_takes_the_edges():
    centers = band_centers_hz(FrontEnd())
    for seed in range(20):
        power = np.ones((5, 40), np.float32)
        spectral_rooms.limit_band(np.random.default_rng(seed), power, centers)
        assert power[:, np.argmin(np.abs(centers - 1500))].min() > 0.9
        assert power[:, -1].max() < 0.7
