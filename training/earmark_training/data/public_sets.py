"""Public data sets that a command downloads: their addresses, sizes, licences and checksums."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tarfile
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING

from earmark_audio.progress import SILENT, Progress

from earmark_training.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TIMEOUT_S = 30
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PublicSet:
    """An archive of recordings."""

    name: str
    url: str
    sha256: str
    size_mb: int
    unpacked_mb: int
    licence: str
    folder: str
    """The folder of the recordings, relative to the one in which the archive is unpacked."""
    in_archive: bool = True
    """Whether the archive has this folder, or only what is in it."""


SPEECH_COMMANDS = PublicSet(
    "Speech Commands v0.02",
    "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
    2428,
    3900,
    "CC BY 4.0",
    "speech_commands",
    in_archive=False,
)
LIBRISPEECH_DEV_CLEAN = PublicSet(
    "LibriSpeech dev-clean, 5.4 h of read English",
    "https://www.openslr.org/resources/12/dev-clean.tar.gz",
    "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    338,
    360,
    "CC BY 4.0",
    "LibriSpeech/dev-clean",
)


def download(one: PublicSet, folder: Path, *, progress: Progress = SILENT) -> Path:
    """Download a data set into a folder, unless it is there; return the folder of its recordings.

    Raises CorpusError if there is no space, no connection, or if the archive is another one.
    """
    recordings = folder / one.folder
    if recordings.is_dir():
        return recordings
    archive = folder / (one.url.rsplit("/", 1)[1] + ".part")
    unpacked = folder / (archive.name + ".unpacked")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_space(one, folder)
        _fetch(one, archive, recordings, progress)
        with progress.phase(f"unpacking {one.name}"), tarfile.open(archive) as tar:
            # Python 3.11 has filters since 3.11.4. The SHA-256 says that the archive is the right one.
            if hasattr(tarfile, "data_filter"):
                tar.extractall(unpacked, filter="data")
            else:
                tar.extractall(unpacked)
        # Only this folder: the one around it may be there already, with other sets.
        recordings.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / one.folder if one.in_archive else unpacked).rename(recordings)
    except (OSError, tarfile.TarError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"It needs {one.size_mb + one.unpacked_mb} MB: make space, or give another folder"
        else:
            remedy = "Give a folder that can be written"
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{folder}: {one.name} cannot be written there: {reason}. {remedy}") from error
    finally:
        with suppress(OSError):
            archive.unlink()
        shutil.rmtree(unpacked, ignore_errors=True)
    return recordings


def _check_space(one: PublicSet, folder: Path) -> None:
    """Raise CorpusError if the disk has too little space for a data set."""
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < one.size_mb + one.unpacked_mb:
        raise CorpusError(
            f"{folder}: {one.name} needs {one.size_mb + one.unpacked_mb} MB, "
            f"{free_mb} MB are free on this disk"
        )


def _fetch(one: PublicSet, archive: Path, recordings: Path, progress: Progress) -> None:
    """Write the archive into a file.

    Raises CorpusError if it cannot be downloaded or its checksum is another one, and OSError if the file
    cannot be written.
    """
    digest = hashlib.sha256()
    with (
        archive.open("wb") as file,
        progress.phase(f"downloading {one.name}", total=one.size_mb, unit="MB") as phase,
    ):
        for block in _blocks(one, recordings):
            file.write(block)
            digest.update(block)
            phase.update(len(block) / 1e6)
    if digest.hexdigest() != one.sha256:
        raise CorpusError(f"{one.url} is not the archive that is expected: its SHA-256 differs")


def _blocks(one: PublicSet, recordings: Path) -> Iterator[bytes]:
    """Iterate over the bytes of the archive. Raises CorpusError if it cannot be downloaded."""
    try:
        with urllib.request.urlopen(one.url, timeout=_TIMEOUT_S) as response:
            while block := response.read(_BLOCK_BYTES):
                yield block
            if response.length:
                raise ConnectionError("the connection ended early")
    except (OSError, HTTPException) as error:
        raise CorpusError(
            f"{one.name} cannot be downloaded from {one.url}: {getattr(error, 'reason', error)}. "
            "Without a connection to it, copy the archive here from another machine, and unpack it as "
            f"{recordings}"
        ) from error
