"""The energy gate: decides which audio is nearly silent, so that it needs no keyword spotting.

The gate works on blocks of 200 ms. It compares the energy in three octave bands (about 500 Hz to 4 kHz) with
the noise floor of the same band, which it tracks. The gate opens in a block in which a band rises clearly
above its floor, and closes 0.8 s after the last such block. In doubt it stays open: in noise that changes,
among talkers, and beside a television it is open all the time.

Its decisions depend on the audio alone, and not on how the audio is split into messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Levels = NDArray[np.float64]

STEPS_PER_SECOND = 25
"""The steps of a gate in front of a model are the model's; for a gate at a source, this is a good number."""

_BLOCK_S = 0.2
_BANDS = 3
_HIGHEST_BAND_HZ = 4_000
_FIRST_S = 2.0
# The floor follows a falling level within half a second. A rising level may be speech, so it follows slowly.
_FALL = 0.5
_RISE_DB_PER_S = 0.5
_DIGITAL_SILENCE_DB = -119.0


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How sensitive a gate is.

    `margins_db`: how far the level of a step has to rise above the noise floor of its band to open the gate,
    for the bands from high to low. A lower band has fewer independent samples in a step, so the level of
    noise varies more. `hold_ms`: how long the gate stays open after the last block in which one did.
    """

    margins_db: tuple[float, float, float] = (4.0, 5.0, 6.0)
    hold_ms: float = 800.0


@dataclass(frozen=True, slots=True)
class GateState:
    """The state of a gate between two steps.

    `floors_db`: the noise floor of each band; empty before the first block. `open_blocks`: how many blocks
    the gate stays open, from the start of the current block; 0 if it is closed. `levels_db`: the levels of
    the steps of the current block so far, in every band.
    """

    floors_db: tuple[float, ...]
    open_blocks: int
    levels_db: tuple[tuple[float, ...], ...]


def band_levels_db(samples: Samples, sample_rate_hz: int, step_samples: int) -> Levels:
    """Return the level of every band in every step, [steps, 3], in dB relative to full scale, high to low.

    samples: [n], mono; the rest after the last whole step is ignored.

    The bands are octaves of the Haar wavelet transform, which costs a few additions per sample.
    """
    skipped = max(0, math.floor(math.log2(sample_rate_hz / 2 / _HIGHEST_BAND_HZ)))
    octaves = skipped + _BANDS
    used = step_samples >> octaves << octaves
    smooth = samples[: len(samples) // step_samples * step_samples].reshape(-1, step_samples)[:, :used]
    powers = []
    for octave in range(octaves):
        even, odd = smooth[:, 0::2], smooth[:, 1::2]
        if octave >= skipped:
            detail = even - odd
            powers.append(np.einsum("ij,ij->i", detail, detail) / (detail.shape[1] * 4.0**octave))
        smooth = even + odd
    return 10 * np.log10(np.stack(powers, axis=1) + 1e-12)


class EnergyGate:
    """Decides block by block whether audio is nearly silent.

    While the gate `is_open`, every step has to be processed, and observed once. While it is closed, every
    block is observed before it is processed: if that opens the gate, the block has to be processed, together
    with the audio before it that the processing depends on.
    """

    def __init__(
        self, settings: GateSettings, sample_rate_hz: int, step_samples: int, state: GateState | None = None
    ) -> None:
        """Start at the beginning of a stream, or continue from a state."""
        self._rate_hz, self._step_samples = sample_rate_hz, step_samples
        self.steps_per_block = max(1, int(_BLOCK_S * sample_rate_hz / step_samples + 1e-9))
        block_s = self.steps_per_block * step_samples / sample_rate_hz
        self._margins_db = settings.margins_db
        self._hold_blocks = math.ceil(settings.hold_ms / 1000 / block_s - 1e-9)
        self._rise_db = _RISE_DB_PER_S * block_s
        self._first_blocks = math.ceil(_FIRST_S / block_s)
        if state is None:
            state = GateState((), self._first_blocks, ())
        self._floors_db = state.floors_db
        self._open_blocks = state.open_blocks
        self._levels_db = list(state.levels_db)

    @property
    def is_open(self) -> bool:
        """Whether the next audio has to be processed, whatever it contains."""
        return self._open_blocks > 0

    @property
    def open_steps(self) -> int:
        """The number of steps until the end of the first block at whose end the gate may close."""
        return self._open_blocks * self.steps_per_block - len(self._levels_db)

    @property
    def state(self) -> GateState:
        """The state, from which another gate can continue."""
        return GateState(self._floors_db, self._open_blocks, tuple(self._levels_db))

    def can_reach(self, state: GateState) -> bool:
        """Return whether a gate with these settings can be in a state."""
        return (
            len(state.levels_db) < self.steps_per_block
            and state.open_blocks <= max(self._first_blocks, self._hold_blocks)
            and (state.open_blocks > 0 or not state.levels_db)
        )

    def observe(self, samples: Samples) -> None:
        """Update the gate with whole steps, [n]; while it is closed, with whole blocks."""
        for levels in band_levels_db(samples, self._rate_hz, self._step_samples).tolist():
            # Rounded, so that rounding errors which depend on the number of steps do not matter.
            self._levels_db.append(tuple(round(level, 2) for level in levels))
            if len(self._levels_db) == self.steps_per_block:
                self._end_block()

    def _end_block(self) -> None:
        bands = list(zip(*self._levels_db, strict=True))
        means = [sum(band) / self.steps_per_block for band in bands]
        floors = self._floors_db or tuple(means)
        is_active = any(
            max(band) > floor + margin
            for band, floor, margin in zip(bands, floors, self._margins_db, strict=True)
        )
        self._open_blocks = max(self._open_blocks - 1, self._hold_blocks if is_active else 0)
        # Digital silence says nothing about the noise in the room.
        if min(map(min, bands)) > _DIGITAL_SILENCE_DB:
            pairs = zip(means, floors, strict=True)
            self._floors_db = tuple(self._next_floor_db(mean, floor) for mean, floor in pairs)
        self._levels_db.clear()

    def _next_floor_db(self, mean_db: float, floor_db: float) -> float:
        difference = mean_db - floor_db
        return round(floor_db + (_FALL * difference if difference < 0 else min(difference, self._rise_db)), 3)
