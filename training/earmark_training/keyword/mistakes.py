"""False alarms that a person has reviewed: clips that `earmark review` has marked as wrong."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from earmark_training.data.corpus import SAMPLE_RATE_HZ, SourceFile
from earmark_training.keyword.recordings import RecordingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from earmark_training.data.corpus import Recording
    from earmark_training.keyword.examples import HardNegative
    from earmark_training.keyword.negatives import Negatives
    from earmark_training.keyword.training_set import TrainingSet

log = logging.getLogger(__name__)

_PREFIX = "mistake "
_SHARE = 0.5
"""The mistakes' share of all hard negatives."""


def add_mistakes(negatives: Negatives, folders: Sequence[Path]) -> Negatives:
    """Return the negatives with the clips of the folders that are marked as wrong.

    Raises RecordingsError for a folder without such clips, and if there is no other speech: a few clips
    cannot replace it.
    """
    if not folders:
        return negatives
    if not negatives.files:
        raise RecordingsError("--mistakes requires --negatives: hours of speech without the keyword")
    files = [file for folder in folders for file in _wrong_clips(folder)]
    log.info("%d false alarms are learned from", len(files))
    return replace(negatives, files=(*negatives.files, *files))


def mistakes_of(training_set: TrainingSet) -> list[HardNegative]:
    """Return the mistakes in a training set: each clip, and the sample at which its false alarm ends."""
    return [
        (recording, min(recording.length, int(recording.text.removeprefix(_PREFIX))))
        for recording in (*training_set.speech, *training_set.held_out)
        if _is_mistake(recording)
    ]


def with_mistakes(mined: list[HardNegative], mistakes: list[HardNegative]) -> list[HardNegative]:
    """Return mined hard negatives together with the mistakes, which are repeated to half of all."""
    if not mistakes:
        return mined
    wanted = max(len(mistakes), round(len(mined) * _SHARE / (1 - _SHARE)))
    return mined + mistakes * (wanted // len(mistakes))


def _is_mistake(recording: Recording) -> bool:
    return recording.text.startswith(_PREFIX) and recording.text.removeprefix(_PREFIX).isdigit()


def _wrong_clips(folder: Path) -> list[SourceFile]:
    files = []
    for path in sorted(folder.glob("*.json")):
        try:
            clip = json.loads(path.read_bytes())
            if clip["type"] != "clip" or clip.get("verdict") != "wrong":
                continue
            end = round((float(clip["end_s"]) - float(clip["clip_start_s"])) * SAMPLE_RATE_HZ)
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            continue
        audio = path.with_suffix(".wav")
        if audio.is_file() and end > 0:
            files.append(SourceFile(audio, "speech", "training", f"{_PREFIX}{end}", f"mistakes {path.stem}"))
    if not files:
        raise RecordingsError(
            f"{folder} contains no clips that are marked as wrong: `earmark review {folder}` marks them"
        )
    return files
