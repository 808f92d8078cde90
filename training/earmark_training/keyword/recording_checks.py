"""Checks of a keyword's recordings together: their number, their voices, and the outliers among them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from earmark_training.keyword.outliers import (
    MIN_TYPICAL_SIMILARITY,
    find_outliers,
    find_suspects,
    similarities,
    typical_similarity,
)
from earmark_training.keyword.recordings import (
    FEW_RECORDINGS,
    RECOMMENDED_RECORDINGS,
    RecordingsError,
    RejectedRecording,
    list_rejected,
)
from earmark_training.keyword.voices import ONE_VOICE_DB, voice_spread_db

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from earmark_training.keyword.recordings import KeywordRecording
    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.network import Network

log = logging.getLogger(__name__)

_MAX_SUSPECT_SHARE = 0.2
_BACKGROUND_PIECES = 60


def warn_if_few(count: int) -> None:
    """Log a warning if there are few recordings, or the recommended number if there are fewer."""
    if count < FEW_RECORDINGS:
        log.warning(
            "%d recordings are few (with 10, 7%% of one word were missed): use synthetic voices too "
            "(--voices), or %d recordings or more",
            count,
            RECOMMENDED_RECORDINGS,
        )
    elif count < RECOMMENDED_RECORDINGS:
        log.info("%d recordings; %d or more are recommended", count, RECOMMENDED_RECORDINGS)


def check_voices(recordings: Sequence[KeywordRecording], folder: Path) -> None:
    """Raise RecordingsError if all recordings are of one voice."""
    spread = voice_spread_db(recordings)
    if spread < ONE_VOICE_DB:
        raise RecordingsError(
            f"all {len(recordings)} recordings in {folder} seem to be of one voice and microphone: their "
            f"spectra differ by {spread:.1f} dB, those of several people by {ONE_VOICE_DB:g} dB or more. The "
            "model would miss the keyword from other people. Add recordings of other people, or use "
            "--one-voice if the model is for one person"
        )


def exclude_outliers(
    network: Network, recordings: Sequence[KeywordRecording], training_set: TrainingSet, folder: Path
) -> dict[int, RejectedRecording]:
    """Return the outliers among the recordings, by index, and log them and the suspects.

    Raises RecordingsError if the recordings do not sound like one word, or if too many are suspects.
    """
    background = [training_set.corpus.samples(r) for r in training_set.speech[:_BACKGROUND_PIECES]]
    similarity = similarities(network, recordings, background)
    typical, suspect_indices = typical_similarity(similarity), find_suspects(similarity)
    outliers = {
        i: RejectedRecording(recordings[i].path, "it does not sound like the same word")
        for i in find_outliers(similarity)
    }
    suspects = [
        RejectedRecording(recordings[i].path, "is it the same word?")
        for i in suspect_indices
        if i not in outliers
    ]
    if typical < MIN_TYPICAL_SIMILARITY or len(suspect_indices) > _MAX_SUSPECT_SHARE * len(recordings):
        raise RecordingsError(
            f"the recordings in {folder} do not sound like one word (typical similarity {typical:.2f}, "
            f"{len(suspect_indices)} of {len(recordings)} differ): use a folder of recordings of one keyword"
            + (
                ". Listen to these:\n" + list_rejected([*outliers.values(), *suspects])
                if suspect_indices
                else ""
            )
        )
    if outliers:
        log.warning(
            "recordings that do not sound like the others, and are left out: %d\n%s",
            len(outliers),
            list_rejected(outliers.values()),
        )
    if suspects:
        log.info(
            "recordings that sound less like the others: %d; listen to them:\n%s",
            len(suspects),
            list_rejected(suspects),
        )
    return outliers
