"""Kokoro-82M, a neural speech synthesizer of 54 voices, reads phonemes.

A folder, the cache, keeps one file per line, so an interrupted or repeated command reads each line only once.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soundfile
from earmark_audio.extras import install_command
from earmark_audio.progress import SILENT, Progress

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.errors import OutputError
from earmark_training.keyword.voice_files import (
    MODEL_FILE,
    MODEL_SHA256,
    VOICES_FILE,
    SynthesisError,
    check_files,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PAD_S = 0.3
"""Silence before and after each line that was read."""

_TRIM_DB = 38.0
_PEAK = 0.5
_FREE_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """A line in phonemes (IPA), the voice that reads it or a blend of two, and the speed."""

    phonemes: str
    voice: str
    other: str = ""
    share: float = 1.0
    """Of `voice`, the rest being `other`."""
    speed: float = 1.0


class Reader(Protocol):
    """A synthesizer that reads lines into files."""

    @property
    def voices(self) -> Sequence[str]:
        """The names of its voices: language, `f` or `m`, underscore, name."""

    def unknown_symbols(self, phonemes: str) -> list[str]:
        """Return the symbols that it cannot read."""

    def read(self, lines: Sequence[Line], *, progress: Progress, desc: str) -> list[Path]:
        """Read each line into a file, or find it in the cache; return the files in order."""


def default_cache() -> Path:
    """Return the folder of a user's cache for synthesized speech."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "earmark" / "voices"


class Kokoro:
    """The synthesizer, on all cores. Raises SynthesisError for wrong files or a missing package."""

    def __init__(self, folder: Path, cache: Path) -> None:
        # Read by onnxruntime when it is imported: it must not open a connection.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        if importlib.util.find_spec("kokoro_onnx") is None:
            raise SynthesisError(f"--voices needs packages that are missing: {install_command('voices')}")
        check_files(folder)
        import kokoro_onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the lines are read in parallel
        session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )
        self._kokoro = kokoro_onnx.Kokoro.from_session(session, str(folder / VOICES_FILE))
        # Loaded into memory, since an npz file cannot be read by several threads.
        self._styles = {name: self._kokoro.voices[name] for name in self._kokoro.voices}
        self._cache = cache
        _make_cache(cache)

    @property
    def voices(self) -> list[str]:
        """The names of the 54 voices."""
        return sorted(self._styles)

    def unknown_symbols(self, phonemes: str) -> list[str]:
        """Return the symbols that are not in the synthesizer's alphabet."""
        return sorted({p for p in phonemes if p not in self._kokoro.tokenizer.vocab and not p.isspace()})

    def read(self, lines: Sequence[Line], *, progress: Progress = SILENT, desc: str) -> list[Path]:
        """Read each line into a FLAC file at 16 kHz, or find it in the cache; return the files in order.

        A damaged file of the cache is replaced.

        Raises OutputError if a file cannot be written, as without space on the disk.
        """
        paths = [self._path(line) for line in lines]
        missing = {path: line for path, line in zip(paths, lines, strict=True) if not _is_whole(path)}
        known = len(lines) - len(missing)
        phase = progress.phase(desc, total=len(lines), unit="lines", initial=known)
        with phase, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            try:
                for _ in pool.map(self._write, missing, missing.values()):
                    phase.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return paths

    def _path(self, line: Line) -> Path:
        key = "|".join(map(str, (MODEL_SHA256[:8], *astuple(line))))
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._cache / digest[:2] / f"{digest[2:32]}.flac"

    def _write(self, path: Path, line: Line) -> None:
        style = self._styles[line.voice]
        if line.other:
            style = style * np.float32(line.share) + self._styles[line.other] * np.float32(1 - line.share)
        samples, rate = self._kokoro.create(line.phonemes, voice=style, speed=line.speed, is_phonemes=True)
        _store(path, padded(samples, rate))


def _store(path: Path, samples: NDArray[np.float32]) -> None:
    """Write speech at 16 kHz into a file of the cache. Raises OutputError if it cannot be written."""
    content = io.BytesIO()  # libsndfile would not say why it cannot write a file
    soundfile.write(content, samples, SAMPLE_RATE_HZ, format="FLAC")
    # Two containers that share a cache may have the same process id.
    part = path.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        part.write_bytes(content.getbuffer())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        if error.errno != errno.ENOSPC:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error
        raise OutputError(
            f"{path} cannot be written: there is no space on the disk. Make space, or name another "
            "folder with --cache, and repeat the command: it goes on from here"
        ) from error


def _is_whole(path: Path) -> bool:
    """Return whether the cache has a file, and all of it: a power failure may leave a part of it."""
    # Decoded as a whole, 0.4 ms: damage in the middle of a file is found, too.
    try:
        soundfile.read(path, dtype="int16")
    except (OSError, soundfile.LibsndfileError):
        return False
    return True


def padded(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Return speech at 16 kHz and at one level, float32 [n], with exactly PAD_S of silence around it."""
    import soxr

    mono = soxr.resample(samples.astype(np.float32), rate, SAMPLE_RATE_HZ)
    hop = SAMPLE_RATE_HZ // 100
    level = np.sqrt(np.square(mono[: len(mono) // hop * hop]).reshape(-1, hop).mean(1) + 1e-12)
    loud = np.flatnonzero(level > level.max() * 10 ** (-_TRIM_DB / 20))
    mono = mono[loud[0] * hop : (loud[-1] + 1) * hop]
    return np.pad(mono * np.float32(_PEAK / np.abs(mono).max()), int(PAD_S * SAMPLE_RATE_HZ))


def _make_cache(cache: Path) -> None:
    """Create the folder. Raises OutputError if it cannot be written, or if the disk is nearly full."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
        free = shutil.disk_usage(cache).free
    except OSError as error:
        raise OutputError(f"{cache} cannot be written: {error.strerror}. Use --cache") from error
    if free < _FREE_BYTES:
        raise OutputError(
            f"{cache}: {free // 1_000_000} MB are free on this disk, {_FREE_BYTES // 1_000_000} MB are "
            "needed: make space, or name another folder with --cache"
        )
