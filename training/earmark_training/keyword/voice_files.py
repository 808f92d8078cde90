"""The files of the neural voices: where a user gets them, and whether they are the right ones.

They come from the release page of the project kokoro-onnx; nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from earmark_training.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "https://github.com/thewh1teagle/kokoro-onnx/releases/tag/model-files-v1.0"
MODEL_FILE, VOICES_FILE = "kokoro-v1.0.int8.onnx", "voices-v1.0.bin"
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
_VOICES_SHA256 = "bca610b8308e8d99f32e6fe4197e7ec01679264efed0cac9140fe9c29f1fbf7d"
_VOICES_CONTENT_SHA256 = "b67f0e6710f8e8a8d9a2ccd34387569b06df584b1ede9a916aa48703a6d6f7d4"
"""Of the names and arrays: the file itself differs each time it is packed, because it contains the time."""


class SynthesisError(TrainingError):
    """No synthesizer is available for a language, its files are wrong, or one failed."""


def check_files(folder: Path) -> None:
    """Raise SynthesisError if the folder does not contain the two files of the release."""
    if not folder.is_dir():
        raise SynthesisError(f"{folder} is not a folder: {_remedy()}")
    for name, expected in ((MODEL_FILE, MODEL_SHA256), (VOICES_FILE, _VOICES_SHA256)):
        path = folder / name
        if not path.is_file():
            raise SynthesisError(f"{path} is missing: {_remedy()}")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SynthesisError(f"{path} cannot be read: {error.strerror}") from error
        if digest != expected and not (name == VOICES_FILE and _has_the_voices(path)):
            raise SynthesisError(
                f"{path} is not the file of the release: its SHA-256 is {digest}, not {expected}. "
                f"Download it again: {_remedy()}"
            )


def _has_the_voices(path: Path) -> bool:
    """Return whether a file has the 54 voices of the release, however they were packed."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file, np.load(file) as voices:
            for name in sorted(voices):
                array = voices[name]
                digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    # np.load raises errors of many types for files of other kinds.
    except Exception:
        return False
    return digest.hexdigest() == _VOICES_CONTENT_SHA256


def _remedy() -> str:
    return f"--voices is a folder with {MODEL_FILE} and {VOICES_FILE} from {RELEASE}"
