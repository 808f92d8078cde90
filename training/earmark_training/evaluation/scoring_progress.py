"""The progress of an evaluation, by the audio that the model has scored."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark_spotter import SpotterModel

from earmark_training.data.corpus import hours
from earmark_training.data.tones import SIGNALS
from earmark_training.data.vocabulary import SILENCE, UNKNOWN
from earmark_training.evaluation.conditions import CALIBRATED, CALIBRATED_RECALL, conditions_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from earmark_audio.progress import Phase, Progress
    from earmark_spotter.model import Float32Array

    from earmark_training.data.corpus import Corpus, Recording

_PAUSE_S = 0.9
_CLIPS_FOR_OFFSETS = 2000
_SYNTHETIC_HOURS = 0.5
_S_PER_HOUR = 10.0
"""The time in which an hour of audio is scored, for the ratio to work of another kind."""


class ScoringProgress:
    """Shows how much audio a model has scored in each phase, of the hours that are expected."""

    def __init__(self, model: SpotterModel, progress: Progress, expected_hours: Mapping[str, float]) -> None:
        self.model: SpotterModel = _CountedModel(model, self._count)
        self._progress, self._expected_hours = progress, expected_hours
        self._phase: Phase | None = None
        progress.plan({phase: _S_PER_HOUR * h for phase, h in expected_hours.items()})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Show a phase while the context lasts."""
        with self._progress.phase(name, total=self._expected_hours.get(name)) as self._phase:
            yield
        self._phase = None

    def _count(self, samples: int) -> None:
        if self._phase is not None:
            self._phase.update(samples / self.model.metadata.sample_rate_hz / 3600)


class _CountedModel(SpotterModel):
    """A loaded model that reports the samples that it scores."""

    def __init__(self, model: SpotterModel, count: Callable[[int], None]) -> None:
        vars(self).update(vars(model))
        self._count = count

    def step(self, pcm: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Run inference, and report the samples."""
        result = super().step(pcm, state)
        self._count(pcm.size)
        return result


def stream_hours(clips: Sequence[Recording]) -> float:
    """Return the expected length of the streams of clips, with their pauses."""
    return hours(clips) + len(clips) * _PAUSE_S / 3600


def hours_to_evaluate(corpus: Corpus, streams_at: int, *, cross_validated: bool) -> dict[str, float]:
    """Return the phases of `evaluate`, each with the hours of audio that the model scores in it.

    `streams_at`: the number of SNRs at which streams are measured.
    """
    clips, speech = corpus.select("clip", "validation"), corpus.select("speech", "validation")
    words = stream_hours([c for c in clips if c.text not in (SILENCE, UNKNOWN)])
    read, noises = hours(speech), hours(corpus.clip_noises("validation"))
    conditions = conditions_for(corpus)
    return {
        "clips": 1.5 * hours(clips),
        "streams": streams_at * words,
        "read speech": (2 if noises else 1) * read,
        "conditions": sum(words * c.words + read * c.speech for c in conditions)
        + words
        + 2 * hours([*corpus.select("noise", "validation"), *corpus.select("music", "validation")])
        + len(SIGNALS) * _SYNTHETIC_HOURS,
        "sounds without speech": 3 * noises + _SYNTHETIC_HOURS,
    } | ({"cross-validation": hours_to_choose_thresholds(corpus) + 2 * words} if cross_validated else {})


def hours_to_choose_thresholds(corpus: Corpus) -> float:
    """Return the hours of audio that are scored to choose thresholds."""
    names = {c.name for c in conditions_for(corpus)}
    words = stream_hours(corpus.select("clip", "validation"))
    read, noises = (hours(corpus.select(kind, "validation")) for kind in ("speech", "noise"))
    spoken = len(names & {*CALIBRATED_RECALL}) * words + len(names & {*CALIBRATED}) * read
    return spoken + 2 * noises


def hours_to_measure_offsets(corpus: Corpus) -> float:
    """Return the hours of audio that are scored to measure where words start and end."""
    return hours(corpus.select("clip", "training")[:_CLIPS_FOR_OFFSETS])
