"""The model states of all open streams in one array, so that a batch gathers and scatters once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.model import Float32Array, SpotterModel

_FIRST_SLOTS = 16


class StateBank:
    """One row of state for each stream that listens with one model; belongs to the engine's thread.

    It grows with the most streams that were ever open at once; rows are used again, the
    lowest first, so that what is not needed is not touched.
    """

    def __init__(self, model: SpotterModel) -> None:
        self._initial_state = model.initial_state
        self._rows = np.empty((_FIRST_SLOTS, model.state_size), np.float32)  # [slots, state_size]
        self._free = list(range(_FIRST_SLOTS))[::-1]

    def allocate(self) -> int:
        """Find a slot, and put into it the state of a stream that is about to begin."""
        if not self._free:
            size = self._rows.shape[0]
            self._rows = np.concatenate((self._rows, np.empty_like(self._rows)))
            self._free = list(range(size, 2 * size))[::-1]
        slot = self._free.pop()
        # What another stream left there must never be heard by this one.
        self._rows[slot] = self._initial_state
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)

    def gather(self, slots: Sequence[int]) -> Float32Array:
        """Copy the states of some slots, [len(slots), state_size]; not to be written to."""
        if len(slots) == 1:
            return self._rows[slots[0] : slots[0] + 1]
        return self._rows.take(slots, axis=0)

    def scatter(self, slots: Sequence[int], states: Float32Array) -> None:
        """Put new states, [len(slots), state_size], into some slots."""
        self._rows[slots] = states
