"""The speech encoder: features of 1.5 s of audio, from the encoder of a speech recognizer.

It was trained to recognize speech of very many people in all surroundings, so a small graph on its features
tells a keyword from other words where the small networks of a model file cannot. It is a file of this package
and not of each model, so that models stay small and a process loads it once.
`scripts/make_speech_encoder.py` makes it; NOTICE says whose it is.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from earmark_spotter.errors import ModelError
from earmark_spotter.onnx_session import open_session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SpeechEncoder:
    """The loaded encoder. It can be used from any number of threads at once."""

    sample_rate_hz = 16_000

    def __init__(self, content: bytes, threads: int = 1) -> None:
        """Load the content of an ONNX file."""
        self.sha256 = hashlib.sha256(content).hexdigest()
        """The SHA-256 of the file, by which a model names the encoder that it needs."""
        self.file_bytes = len(content)
        """The length of the file."""
        self._session: Any = open_session(content, threads)
        self.window_samples: int = self._session.get_inputs()[0].shape[1]
        """The samples that the features depend on, at 16 kHz: 24,000."""

    def features(self, pcm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features, [30, 288], of the last `window_samples` of the audio, [n], of any level."""
        (features,) = self._session.run(("features",), {"pcm": pcm[None, -self.window_samples :]})
        result: NDArray[np.float32] = features[0]
        return result


@cache
def bundled_speech_encoder(threads: int = 1) -> SpeechEncoder:
    """Return the encoder of this package, which is loaded at the first call."""
    return SpeechEncoder((resources.files("earmark_spotter") / "speech_encoder.onnx").read_bytes(), threads)


def load_speech_encoder(sha256: str, threads: int) -> SpeechEncoder:
    """Return the encoder that a model needs. Raises ModelError if this version has another one."""
    encoder = bundled_speech_encoder(threads)
    if encoder.sha256 != sha256:
        raise ModelError(
            f"The model needs the speech encoder {sha256[:12]}, but this version of Earmark has "
            f"{encoder.sha256[:12]}: use the version that made the model, or train the model again."
        )
    return encoder
