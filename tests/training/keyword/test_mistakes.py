"""`--mistakes`: reviewed false alarms are hard negatives in every round."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_training.data.corpus import SourceFile
from earmark_training.keyword.mistakes import add_mistakes, mistakes_of, with_mistakes
from earmark_training.keyword.negatives import Negatives
from earmark_training.keyword.recordings import RecordingsError
from earmark_training.keyword.training_set import collect

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 16_000


def write(path: Path, seconds: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, round(seconds * RATE_HZ)), RATE_HZ)
    return path


def clip(folder: Path, name: str, verdict: str | None) -> None:
    write(folder / f"{name}.wav", 3.0)
    fields = {"type": "clip", "start_s": 11.5, "end_s": 12.0, "clip_start_s": 10.0, "verdict": verdict}
    (folder / f"{name}.json").write_text(json.dumps(fields))


def negatives(tmp_path: Path, count: int = 8) -> Negatives:
    paths = [write(tmp_path / "speech" / f"{i}.wav", 2.0) for i in range(count)]
    return Negatives(tuple(SourceFile(p, "speech", "training", "", p.stem) for p in paths), 0)


def test_wrong_clips_are_hard_negatives_with_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    for name, verdict in (("a", "wrong"), ("b", "right"), ("c", None), ("d", "wrong"), ("e", "missed")):
        clip(folder, name, verdict)
    (folder / "broken.json").write_text("{")
    both = add_mistakes(negatives(tmp_path), [folder])
    words = [write(tmp_path / "words" / f"{i}.wav", 1.0) for i in range(3)]
    training_set = collect({"word": words}, both.files, tmp_path / "scratch", language=None, seed=1)
    mistakes = mistakes_of(training_set)
    assert [(recording.length, end) for recording, end in mistakes] == [(3 * RATE_HZ, 2 * RATE_HZ)] * 2
    assert len({recording.start for recording, _ in mistakes}) == 2


def test_mistakes_are_half_of_the_hard_negatives(tmp_path: Path) -> None:
    mined = [("speech", i) for i in range(100)]
    mistakes = [("mistake", i) for i in range(10)]
    mixed = with_mistakes(mined, mistakes)  # type: ignore[arg-type]
    assert mixed[:100] == mined
    assert sorted(mixed[100:]) == sorted(mistakes * 10)
    assert with_mistakes(mined, []) == mined  # type: ignore[arg-type]
    assert with_mistakes([], mistakes) == mistakes  # type: ignore[arg-type]


def test_a_folder_without_mistakes_is_reported(tmp_path: Path) -> None:
    clip(tmp_path / "clips", "a", "right")
    with pytest.raises(RecordingsError, match="no clips that are marked as wrong"):
        add_mistakes(negatives(tmp_path), [tmp_path / "clips"])


def test_other_speech_is_required(tmp_path: Path) -> None:
    with pytest.raises(RecordingsError, match="--mistakes requires --negatives"):
        add_mistakes(Negatives((), 0), [tmp_path])
