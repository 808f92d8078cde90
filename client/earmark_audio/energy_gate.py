"""The energy gate: decides which audio is nearly silent, so that it needs no keyword spotting.

The gate works on blocks of 200 ms. It compares the energy in three octave bands (about 500 Hz to 4 kHz) with
the noise floor of the same band, which it tracks. The gate opens in a block in which a band rises clearly
above its floor, and closes 0.8 s after the last such block. In doubt it stays open: in noise that changes,
among talkers, and near a television it is open all the time.

Its decisions depend on the audio alone, and not on how the audio is split into messages.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Powers = NDArray[np.float64]

STEPS_PER_SECOND = 25
"""The steps of a gate in front of a model are the model's; for a gate at a source, this is a good number."""

_BLOCK_S = 0.2
_BANDS = 3
_HIGHEST_BAND_HZ = 4_000
_FIRST_S = 2.0
# The floor follows a falling level within half a second. A rising level may be speech, so it follows slowly.
_FALL = 0.5
_RISE_DB_PER_S = 0.5
_DIGITAL_SILENCE = 1e-12


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How sensitive a gate is.

    `margins_db`: how far the power of a step has to rise above the noise floor of its band to open the gate,
    for the bands from high to low. A lower band has fewer independent samples in a step, so the power of
    noise varies more. `hold_ms`: how long the gate stays open after the last block in which one did.
    """

    margins_db: tuple[float, float, float] = (4.0, 5.0, 6.0)
    hold_ms: float = 800.0


@dataclass(frozen=True, slots=True)
class GateState:
    """The state of a gate between two steps.

    `floors`: the noise floor of each band, a power; empty before the first block. `open_blocks`: how many
    blocks the gate stays open, from the start of the current block; 0 if it is closed. `powers`: the powers
    of the steps of the current block so far, in every band.
    """

    floors: tuple[float, ...]
    open_blocks: int
    powers: tuple[tuple[float, ...], ...]


def band_powers(samples: Samples, sample_rate_hz: int, step_samples: int) -> Powers:
    """Return the mean square of every band in every step, [steps, 3], bands from high to low.

    samples: [n], mono; the rest after the last whole step is ignored.
    """
    wavelets, bands = _haar(max(0, math.floor(math.log2(sample_rate_hz / 2 / _HIGHEST_BAND_HZ))))
    size = len(wavelets)
    groups = step_samples // size
    steps = samples[: len(samples) // step_samples * step_samples].reshape(-1, step_samples)
    details = (steps[:, : groups * size].reshape(-1, size) @ wavelets).reshape(-1, groups, len(bands))
    powers: Powers = np.einsum("sgw,sgw->sw", details, details) @ bands
    return powers / groups


@functools.cache
def _haar(skipped: int) -> tuple[Samples, Samples]:
    """Return the Haar wavelets of three octaves, below `skipped` higher ones, and the band of each wavelet.

    Returns [samples, wavelets] and [wavelets, 3]. The product of a few samples with a wavelet is the
    difference between the mean of its first half and the mean of its second half.
    """
    size = 1 << (skipped + _BANDS)
    columns, bands = [], []
    for band in range(_BANDS):
        length = 1 << (skipped + band + 1)
        for start in range(0, size, length):
            column = np.zeros(size, np.float32)
            column[start : start + length // 2] = 1 / length
            column[start + length // 2 : start + length] = -1 / length
            columns.append(column)
            bands.append(np.eye(_BANDS, dtype=np.float32)[band] * (length / size))
    return np.stack(columns, axis=1), np.stack(bands)


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
        self._margins = tuple(10 ** (margin_db / 10) for margin_db in settings.margins_db)
        self._hold_blocks = math.ceil(settings.hold_ms / 1000 / block_s - 1e-9)
        self._rise = 10 ** (_RISE_DB_PER_S * block_s / 10)
        self._first_blocks = math.ceil(_FIRST_S / block_s)
        if state is None:
            state = GateState((), self._first_blocks, ())
        self._floors = state.floors
        self._open_blocks = state.open_blocks
        self._powers: list[Sequence[float]] = list(state.powers)

    @property
    def is_open(self) -> bool:
        """Whether the next audio has to be processed, whatever it contains."""
        return self._open_blocks > 0

    @property
    def open_steps(self) -> int:
        """The number of steps until the end of the first block at whose end the gate may close."""
        return self._open_blocks * self.steps_per_block - len(self._powers)

    @property
    def state(self) -> GateState:
        """The state, from which another gate can continue."""
        return GateState(self._floors, self._open_blocks, tuple(tuple(powers) for powers in self._powers))

    def can_reach(self, state: GateState) -> bool:
        """Return whether a gate with these settings can be in a state."""
        return (
            len(state.powers) < self.steps_per_block
            and state.open_blocks <= max(self._first_blocks, self._hold_blocks)
            and (state.open_blocks > 0 or not state.powers)
        )

    def observe(self, samples: Samples) -> None:
        """Update the gate with whole steps, [n]; while it is closed, with whole blocks."""
        self._powers += band_powers(samples, self._rate_hz, self._step_samples).tolist()
        while len(self._powers) >= self.steps_per_block:
            self._end_block(self._powers[: self.steps_per_block])
            del self._powers[: self.steps_per_block]

    def _end_block(self, powers: list[Sequence[float]]) -> None:
        bands = list(zip(*powers, strict=True))
        means = [sum(band) / len(band) for band in bands]
        floors = self._floors or means
        is_active = any(
            max(band) > floor * margin
            for band, floor, margin in zip(bands, floors, self._margins, strict=True)
        )
        self._open_blocks = max(self._open_blocks - 1, self._hold_blocks if is_active else 0)
        # Digital silence says nothing about the noise in the room.
        if min(bands[0]) > _DIGITAL_SILENCE:
            self._floors = tuple(
                floor + _FALL * (mean - floor) if mean < floor else min(mean, floor * self._rise)
                for mean, floor in zip(means, floors, strict=True)
            )
