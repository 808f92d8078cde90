"""Helpers: other words that a keyword is trained beside, in clips of neural voices that this package has.

A network that tells several words apart learns what words are, and not only that a synthetic voice speaks.
In the served model, the probability of the helpers is part of that of unknown speech. Words that sound like a
helper belong to it, as those that sound like a keyword do. `scripts/make_helpers.py` makes the clips.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from earmark_training.keyword.pronunciation import distance, joined, pronounce
from earmark_training.keyword.similar_words import sounds_like

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from earmark_training.keyword.pronunciation import Phonemes

HELPERS = ("happy", "zero", "forward", "computer", "jarvis")
"""Five, so that there are four beside any keyword that is one of them."""
INDEX = "index.json"
_WORDS_TOGETHER = 5
_LEAST_DISTANCE = 0.5
"""From a keyword, in proportion to the phonemes of the longer one."""


@dataclass(frozen=True, slots=True)
class HelperClip:
    """A file in which a voice says a helper, and where, in samples at 16 kHz."""

    path: Path
    word: str
    place: tuple[int, int]


def write_helpers(
    keywords: Collection[Sequence[Phonemes]], folder: Path
) -> tuple[list[HelperClip], list[Path]]:
    """Write the clips of the helpers, and those of words that sound like them, to a new folder.

    None of these words sounds like one of the `keywords`. With more keywords there are fewer helpers.
    """
    helpers = _beside(keywords)
    clips: list[HelperClip] = []
    similar: list[Path] = []
    package = resources.files("earmark_training.keyword")
    with (package / "helpers.zip").open("rb") as file, zipfile.ZipFile(file) as archive:
        for entry in json.loads(archive.read(INDEX)):
            if entry["helper"] not in helpers:
                continue
            if "place" in entry:
                archive.extract(entry["file"], folder)
                start, end = entry["place"]
                clips.append(HelperClip(folder / entry["file"], entry["helper"], (start, end)))
            elif not any(sounds_like(entry["phonemes"], keyword) for keyword in keywords):
                archive.extract(entry["file"], folder)
                similar.append(folder / entry["file"])
    return clips, similar


def _beside(keywords: Collection[Sequence[Phonemes]]) -> list[str]:
    """Return the helpers for keywords: none that sounds like one of them."""
    spoken = [joined(words) for words in keywords]
    far = [
        helper
        for helper, (phonemes,) in zip(HELPERS, pronounce(HELPERS, "en"), strict=True)
        if all(distance(phonemes, k) > _LEAST_DISTANCE * max(len(phonemes), len(k)) for k in spoken)
    ]
    return far[: max(0, _WORDS_TOGETHER - len(keywords))]
