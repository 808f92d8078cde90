"""The state pool: the model states of all open streams in one array, so that a batch is gathered at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.model import Float32Array, SpotterModel

_FIRST_SLOTS = 16


class StatePool:
    """One row of state for each stream that uses one model. It belongs to the engine's thread.

    The pool grows to the largest number of streams that were open at once. Freed rows are reused, the most
    recently freed first, so that memory that is not needed is not touched.
    """

    def __init__(self, model: SpotterModel) -> None:
        self._initial_state = model.initial_state
        self._rows = np.empty((_FIRST_SLOTS, model.state_size), np.float32)  # [slots, state_size]
        self._free = list(range(_FIRST_SLOTS))[::-1]

    @property
    def capacity(self) -> int:
        """The number of rows, used and free."""
        return self._rows.shape[0]

    def acquire(self) -> int:
        """Return a free slot, reset to the state at the start of a stream."""
        if not self._free:
            size = self.capacity
            self._rows = np.concatenate((self._rows, np.empty_like(self._rows)))
            self._free = list(range(size, 2 * size))[::-1]
        slot = self._free.pop()
        # The state of the previous stream must not leak into this one.
        self._rows[slot] = self._initial_state
        return slot

    def reset(self, slot: int) -> None:
        """Set a slot to the state at the start of a stream, which is the state after digital silence."""
        self._rows[slot] = self._initial_state

    def release(self, slot: int) -> None:
        """Mark a slot as free."""
        self._free.append(slot)

    def gather(self, slots: Sequence[int]) -> Float32Array:
        """Return the states of some slots, [len(slots), state_size], read-only."""
        if len(slots) == 1:
            return self._rows[slots[0] : slots[0] + 1]
        return self._rows.take(slots, axis=0)

    def scatter(self, slots: Sequence[int], states: Float32Array) -> None:
        """Store new states, [len(slots), state_size], in some slots."""
        self._rows[slots] = states
