"""The files of the neural voices: where a user gets them, and whether they are the right ones.

They come from the release page of the project kokoro-onnx; nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from earmark_training.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "https://github.com/thewh1teagle/kokoro-onnx/releases/tag/model-files-v1.0"
MODEL_FILE, VOICES_FILE = "kokoro-v1.0.int8.onnx", "voices-v1.0.bin"
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
_VOICES_SHA256 = (
    "bca610b8308e8d99f32e6fe4197e7ec01679264efed0cac9140fe9c29f1fbf7d",
    # The same voices in another container.
    "02143b51b9a9ea323ac6ed838e93555091a484032ac94e073040b95e5fdc162f",
)


class SynthesisError(TrainingError):
    """No synthesizer is available for a language, its files are wrong, or one failed."""


def check_files(folder: Path) -> None:
    """Raise SynthesisError if the folder does not contain the two files of the release."""
    if not folder.is_dir():
        raise SynthesisError(f"{folder} is not a folder: {_remedy()}")
    for name, digests in ((MODEL_FILE, (MODEL_SHA256,)), (VOICES_FILE, _VOICES_SHA256)):
        path = folder / name
        if not path.is_file():
            raise SynthesisError(f"{path} is missing: {_remedy()}")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SynthesisError(f"{path} cannot be read: {error.strerror}") from error
        if digest not in digests:
            raise SynthesisError(
                f"{path} is not the file of the release: its SHA-256 is {digest}, not {digests[0]}. "
                f"Download it again: {_remedy()}"
            )


def _remedy() -> str:
    return f"--voices is a folder with {MODEL_FILE} and {VOICES_FILE} from {RELEASE}"
