"""The errors that the spotter raises: one root class and one subclass for each kind of bad input."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SpotterError(Exception):
    """The root of every error that the spotter raises on bad input.

    The message tells a person what was expected, what was received, and what to do.
    """

    reason: ClassVar[str] = "SPOTTER_ERROR"
    """A stable UPPER_SNAKE name of the kind, which services pass on to their clients."""


class AudioError(SpotterError):
    """Audio that is empty, damaged, not finite, not audio at all, or cut inside a sample."""

    reason = "BAD_AUDIO"


class InvalidSamplesError(AudioError):
    """Samples that are not finite, or far beyond full scale; it carries those before the first of them."""

    def __init__(self, message: str, samples: NDArray[np.float32]) -> None:
        super().__init__(message)
        self.samples = samples
        """float32 mono [n]."""


class IncompleteRecordingError(AudioError):
    """A recording that is cut off or damaged; it carries what could be decoded before that point."""

    def __init__(self, message: str, samples: NDArray[np.float32], sample_rate_hz: int) -> None:
        super().__init__(message)
        self.samples = samples
        """float32 mono [n]."""
        self.sample_rate_hz = sample_rate_hz


class EncodingError(SpotterError):
    """An encoding or a container that is not supported for this kind of input."""

    reason = "UNSUPPORTED_ENCODING"


class SampleRateError(SpotterError):
    """A sample rate outside the supported range."""

    reason = "UNSUPPORTED_SAMPLE_RATE"


class KeywordError(SpotterError):
    """A keyword that the model does not have, or one that was requested twice."""

    reason = "UNKNOWN_KEYWORD"


class ThresholdError(SpotterError):
    """A threshold or a refractory period out of range."""

    reason = "BAD_THRESHOLD"


class TooLongError(SpotterError):
    """A recording, or a silence, that is longer than the limit."""

    reason = "MESSAGE_TOO_LARGE"


class ResumeError(SpotterError):
    """A resume token that is malformed, or that was issued for another stream."""

    reason = "BAD_RESUME_TOKEN"


class ModelError(SpotterError):
    """A model file that cannot be used; the message names the field at fault."""

    reason = "BAD_MODEL"
