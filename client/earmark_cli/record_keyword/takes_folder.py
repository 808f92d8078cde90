"""The folder of a keyword's takes: those that are there, and new ones."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark_audio import find_recordings
from earmark_audio.utterance import UtteranceError, find_word
from earmark_client.errors import RecordingError
from earmark_client.recording import Recording

from earmark_cli.output.files import reserve
from earmark_cli.record_keyword.likeness import distance, is_unlike, spectra

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_cli.record_keyword.likeness import Spectra
    from earmark_cli.record_keyword.take_finder import Take

_COMPARED = 8


class TakesFolder:
    """The takes in a folder. Raises RecordingError if it cannot be written or read."""

    def __init__(self, folder: Path, keyword: str) -> None:
        self.folder = folder
        self._stem = re.sub(r"[^\w-]+", "-", keyword).strip("-") or "take"
        self._words: list[Spectra] = []
        self._doubted: Take | None = None
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise RecordingError(f"{folder} is not a folder: choose another one with --out")
        files, _ = find_recordings(folder)
        self.count = len(files)
        for path in files[-_COMPARED:]:
            self._compare_with(path)

    def add(self, take: Take) -> Path | None:
        """Write a take, and return its file; None if it does not sound like the others.

        If the next take sounds like the one that was left out, as with another speaker, both are kept.
        """
        word = spectra(take.spoken, take.sample_rate_hz)
        if is_unlike(word, self._words):
            doubted, self._doubted = self._doubted, take
            if doubted is None or not self._is_like(doubted, word):
                return None
            self._write(doubted)
        self._doubted = None
        return self._write(take)

    def _is_like(self, doubted: Take, word: Spectra) -> bool:
        """Return whether a word is nearer to the one that was left out than to all others."""
        nearest = min(distance(word, other) for other in self._words)
        return distance(word, spectra(doubted.spoken, doubted.sample_rate_hz)) < nearest

    def _write(self, take: Take) -> Path:
        """Write a take into a new file, at 16 bits."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = reserve(lambda number: self.folder / f"{self._stem}-{self.count + number:03d}.wav")
            part = path.with_suffix(".part")
            try:
                soundfile.write(part, take.samples, take.sample_rate_hz, subtype="PCM_16", format="WAV")
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        except (OSError, soundfile.LibsndfileError) as error:
            raise RecordingError(f"{self.folder}: a take cannot be written: {error}") from error
        self.count += 1
        self._words = [*self._words, spectra(take.spoken, take.sample_rate_hz)][-_COMPARED:]
        return path

    def _compare_with(self, path: Path) -> None:
        """Compare new takes with a file, if it can be read."""
        try:
            with Recording(path) as recording:
                samples = (np.frombuffer(b"".join(recording), "<i2") / 32768).astype(np.float32)
                first, last = find_word(samples, recording.sample_rate_hz)
        except (RecordingError, UtteranceError):
            return  # `earmark-train keyword` says what is wrong with it
        self._words.append(spectra(samples[first:last], recording.sample_rate_hz))
