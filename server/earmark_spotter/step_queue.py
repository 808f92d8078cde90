"""Queues of audio in steps of the model, which decide which steps need inference.

`StepQueue` skips digital silence: after a receptive field of it, the state of the model is its initial state,
and its scores do not change until there is audio again. `GatedStepQueue` also skips audio that is nearly
silent.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from earmark_audio.energy_gate import EnergyGate

from earmark_spotter.errors import ResumeError
from earmark_spotter.resume import INVALID_CONTENT, GateSnapshot
from earmark_spotter.sample_queue import SampleQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from earmark_audio.energy_gate import GateSettings

    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array
    from earmark_spotter.resampler import AudioPiece

_MAX_RUN_S = 60.0
"""The longest replay on which the model may be run. Genuine tokens that need it have a few seconds."""


class StepQueue:
    """Audio that the model has not processed yet, counted in steps."""

    def __init__(self, metadata: ModelMetadata, position: int) -> None:
        """`position`: the first step of the audio, counted from the start of the stream."""
        self.position = position
        """The next step, counted from the start of the stream."""
        self._step_samples = metadata.step_samples
        self._settling_steps = -(-metadata.receptive_field_samples // self._step_samples)
        # The model starts in the state after digital silence.
        self._samples = SampleQueue(consumed_silence=self._settling_steps * self._step_samples)
        self._is_finished = False

    @property
    def ready_steps(self) -> int:
        """The number of whole steps, which take memory only when they are consumed if they are silence."""
        return len(self._samples) // self._step_samples

    @property
    def quiet_steps(self) -> int:
        """The next steps that need no inference."""
        if self._samples.consumed_silence < self._settling_steps * self._step_samples:
            return 0
        return self._samples.leading_silence // self._step_samples

    @property
    def may_wait(self) -> bool:
        """Whether no step is due for inference, whatever audio comes next."""
        return False

    @property
    def starts_from_initial_state(self) -> bool:
        """Whether the model has to process the next step from its initial state."""
        return self._samples.consumed_silence >= self._settling_steps * self._step_samples

    def snapshot(self, position: int) -> GateSnapshot | None:
        """Return the state of the gate at the detector's next step, `position`; None without a gate."""
        del position
        return None

    def extend(self, pieces: Iterable[AudioPiece]) -> None:
        """Append pieces of audio; arrays are not silent."""
        self._samples.extend(pieces)

    def finish(self, silence: int) -> int:
        """Append `silence` samples of silence, up to a whole step; return the step after the last one."""
        length = len(self._samples)
        steps = max(1, -(-(length + silence) // self._step_samples))
        self._samples.append_silence(steps * self._step_samples - length)
        self._is_finished = True
        return self.position + steps

    def steps_to_run(self, limit: int) -> int:
        """Return how many steps to run the model on now, at most `limit`: none that can be skipped."""
        settling = self._settling_steps * self._step_samples
        step = self._step_samples
        return self._samples.samples_before_silence(settling, step, limit * step) // step

    def consume(self, steps: int) -> Float32Array:
        """Remove and return the samples of the next steps, [steps * step_samples], read-only.

        Raises ValueError for more than `ready_steps`.
        """
        if not 0 < steps <= self.ready_steps:
            raise ValueError(f"{steps} steps were requested, but {self.ready_steps} are ready")
        self.position += steps
        return self._samples.consume(steps * self._step_samples)

    def skip(self, steps: int) -> None:
        """Remove quiet steps. Raises ValueError for more than `quiet_steps`."""
        if not 0 < steps <= self.quiet_steps:
            raise ValueError(f"{steps} quiet steps were requested, but there are {self.quiet_steps}")
        self.position += steps
        self._skip(steps)

    def _skip(self, steps: int) -> None:
        self._samples.drop_silence(steps * self._step_samples)


class GatedStepQueue(StepQueue):
    """A queue that skips steps while the energy gate is closed.

    When the gate opens, the queue goes back to the skipped audio of a receptive field, or to all of it if
    there is less. So the model is in the state that it would have without a gate, and every later score is
    the same. The steps before the opening have no scores of their own: the detector has dealt with them.
    """

    def __init__(
        self,
        metadata: ModelMetadata,
        settings: GateSettings,
        position: int,
        resume: GateSnapshot | None,
        resume_position: int,
    ) -> None:
        """`resume`: the state of the gate at the resume point, which is at the step `resume_position`.

        The audio before the resume point, which is replayed from `position` on, is treated as the gate
        treated it before the stream broke.
        """
        super().__init__(metadata, position)
        state = None if resume is None else resume.state
        self._gate = EnergyGate(settings, metadata.sample_rate_hz, self._step_samples, state)
        self._observed_steps = 0  # of the next steps, which are run in any case
        self._gated_steps = 0  # of the next steps, which are not run
        self._skipped: deque[Float32Array] = deque()
        self._skipped_steps = 0
        self._starts_from_initial_state = True
        self._has_skipped = False  # in the last run or skip
        is_run = resume is not None and (self._gate.is_open or bool(resume.run_steps))
        replayed_s = (resume_position - position) * self._step_samples / metadata.sample_rate_hz
        if resume is not None and (
            not self._gate.can_reach(resume.state) or (is_run and replayed_s > _MAX_RUN_S)
        ):
            raise ResumeError(INVALID_CONTENT)
        if resume is not None and is_run:
            self._observed_steps = resume_position - position + resume.run_steps
        elif resume is not None:
            self._gated_steps = resume_position - position + resume.gated_steps

    @property
    def quiet_steps(self) -> int:
        """The next steps that need no inference. Only silence may be long: other steps take memory."""
        silent_steps = self._samples.leading_silence // self._step_samples
        return min(self._gated_steps, self.ready_steps, silent_steps or self._gate.steps_per_block)

    @property
    def may_wait(self) -> bool:
        """Whether no step is due for inference, whatever audio comes next."""
        return not self._gate.is_open and not self._observed_steps

    @property
    def starts_from_initial_state(self) -> bool:
        """Whether the model has to process the next step from its initial state."""
        return self._starts_from_initial_state

    def snapshot(self, position: int) -> GateSnapshot:
        """Return the state of the gate at the detector's next step, `position`."""
        # After a run or a skip, the detector may have processed a part of it only.
        ahead = self.position - position
        if self._has_skipped:
            return GateSnapshot(self._gate.state, 0, max(0, ahead))
        return GateSnapshot(self._gate.state, max(0, self._observed_steps + ahead), 0)

    def steps_to_run(self, limit: int) -> int:
        """Return how many steps to run the model on now, at most `limit`: none that can be skipped."""
        if not self._gate.is_open and not self._gated_steps and not self._observed_steps:
            self._observe_block()
        if self._gated_steps:
            return 0
        open_steps = self._gate.open_steps if self._gate.is_open else 0
        return min(limit, self.ready_steps, self._observed_steps + open_steps)

    def consume(self, steps: int) -> Float32Array:
        """Remove and return the samples of the next steps, [steps * step_samples], read-only."""
        samples = super().consume(steps)
        self._starts_from_initial_state = self._has_skipped = False
        new = max(0, steps - self._observed_steps)
        self._observed_steps -= steps - new
        if new:
            self._gate.observe(samples[-new * self._step_samples :])
        return samples

    def _observe_block(self) -> None:
        """Decide on the next block, while the gate is closed: open the gate, or skip the block."""
        block = self._gate.steps_per_block
        silent_blocks = self._samples.leading_silence // (block * self._step_samples)
        # After a skip of part of a long silence, the rest of a block is silence as well.
        count = min(block - self.position % block, self.ready_steps if self._is_finished else block)
        if silent_blocks:
            self._gated_steps = silent_blocks * block - self.position % block
        elif count < block:
            self._gated_steps = min(count, self.ready_steps)
        elif self.ready_steps >= block:
            self._gate.observe(self._samples.peek(block * self._step_samples))
            if self._gate.is_open:
                self._go_back(block)
            else:
                self._gated_steps = block

    def _go_back(self, observed_steps: int) -> None:
        self._has_skipped = False
        self.position -= self._skipped_steps
        self._observed_steps = self._skipped_steps + observed_steps
        while self._skipped:
            self._samples.prepend(self._skipped.pop())
        self._skipped_steps = 0

    def _skip(self, steps: int) -> None:
        self._gated_steps -= steps
        self._has_skipped = True
        if self._samples.leading_silence >= steps * self._step_samples and steps >= self._settling_steps:
            self._samples.drop_silence(steps * self._step_samples)
            self._skipped.clear()
            self._skipped_steps = 0
            self._starts_from_initial_state = True
            return
        samples = self._samples.consume(steps * self._step_samples)
        self._skipped.append(samples)
        self._skipped_steps += steps
        while self._skipped_steps - len(self._skipped[0]) // self._step_samples >= self._settling_steps:
            self._skipped_steps -= len(self._skipped.popleft()) // self._step_samples
            self._starts_from_initial_state = True
