"""The recordings of each keyword: those that are used, and those that are left out, with the reason."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earmark_training.keyword.recording_checks import check_voices, exclude_outliers, warn_if_few
from earmark_training.keyword.recordings import (
    MIN_RECORDINGS,
    KeywordRecording,
    RecordingsError,
    RejectedRecording,
    list_rejected,
    read_recording,
    read_recordings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.network import Network

log = logging.getLogger(__name__)


@dataclass(slots=True)
class RecordedKeyword:
    """The recordings of one keyword, and the folder that they are from, if there is one."""

    folder: Path | None
    used: list[KeywordRecording]
    left_out: list[RejectedRecording]


def read_recorded(folder: Path | None, *, with_voices: bool, one_voice: bool) -> RecordedKeyword:
    """Return the recordings of one keyword.

    `with_voices` says that synthetic voices read it, too: then few recordings are enough. `one_voice` accepts
    recordings of one person. Raises RecordingsError if they cannot be used.
    """
    if folder is None:
        return RecordedKeyword(None, [], [])
    used, rejected = read_recordings(folder, least=1 if with_voices else MIN_RECORDINGS)
    if rejected:
        log.warning("recordings that are left out: %d\n%s", len(rejected), list_rejected(rejected))
    if not with_voices:
        if not one_voice:
            check_voices(used, folder)
        warn_if_few(len(used))
    return RecordedKeyword(folder, used, rejected)


def check_keywords_differ(recorded: Mapping[str, RecordedKeyword]) -> None:
    """Raise RecordingsError if keywords share recordings, which say nothing of the difference."""
    first: dict[str, tuple[str, Path]] = {}
    shared: list[RejectedRecording] = []
    for keyword, of_keyword in recorded.items():
        for recording in of_keyword.used:
            digest = hashlib.sha256(recording.samples.tobytes()).hexdigest()
            other, path = first.setdefault(digest, (keyword, recording.path))
            if other != keyword:
                reason = f"as one of {keyword!r}, it is the same recording as {path} of {other!r}"
                shared.append(RejectedRecording(recording.path, reason))
    if shared:
        raise RecordingsError(
            f"recordings that are those of two keywords: {len(shared)}; leave each in the folder of the word "
            f"that is spoken in it:\n{list_rejected(shared)}"
        )


def add_missed_words(recorded: RecordedKeyword, paths: Sequence[Path]) -> None:
    """Add recordings of words that a model missed, unless they are there already."""
    known = {recording.samples.tobytes() for recording in recorded.used}
    for path in paths:
        recording = read_recording(path)
        if isinstance(recording, RejectedRecording):
            log.warning("a missed word is left out:\n%s", list_rejected([recording]))
            recorded.left_out.append(recording)
        elif recording.samples.tobytes() not in known:
            recorded.used.append(recording)


def without_outliers(
    network: Network, training_set: TrainingSet, recorded: Mapping[str, RecordedKeyword]
) -> TrainingSet:
    """Return the training set without outliers among the recordings, which move to those left out."""
    first, excluded = 0, []
    for of_keyword in recorded.values():
        folder = of_keyword.folder
        if folder is not None and len(of_keyword.used) >= MIN_RECORDINGS:
            found = exclude_outliers(network, of_keyword.used, training_set, folder)
            # A person has confirmed the words that were missed.
            outliers = {i: r for i, r in found.items() if r.path.is_relative_to(folder)}
            excluded += [first + i for i in outliers]
            first += len(of_keyword.used)
            of_keyword.used = [r for i, r in enumerate(of_keyword.used) if i not in outliers]
            of_keyword.left_out += outliers.values()
        else:
            first += len(of_keyword.used)
    return training_set.without(excluded) if excluded else training_set
