"""Events and results that a server returns, as plain values.

All offsets and lengths are float seconds. Offsets count from the start of the stream's audio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark_client.audio_clip import AudioClip


@dataclass(frozen=True, slots=True)
class ActiveKeyword:
    """A keyword of a model that is detected, with its effective settings."""

    keyword: str
    threshold: float
    refractory_s: float
    model: str = ""


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """A model of a stream or of a recording."""

    name: str
    version: str
    step_s: float
    receptive_field_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The stream has started. The first event; it comes before any audio is needed.

    With several `models`, `model` and `model_version` are those of the first one, `step_s` and
    `receptive_field_s` are the longest, and `keywords` are those of all.
    """

    model: str
    model_version: str
    keywords: tuple[ActiveKeyword, ...]
    step_s: float
    receptive_field_s: float
    request_id: str
    models: tuple[ActiveModel, ...] = ()


@dataclass(frozen=True, slots=True)
class Detection:
    """A keyword was detected by `model` between `start_s` and `end_s`.

    The same audio always yields the same `id`, regardless of chunk sizes and of resumed calls.
    `level_dbfs`: the level of the word; `snr_db`: how far that is above the noise before it (the API
    definition states both exactly); None if the server does not know it. `audio`: the audio around the
    keyword, if the stream was started with `keep_audio_s`.
    """

    keyword: str
    confidence: float
    start_s: float
    end_s: float
    id: str
    level_dbfs: float | None = None
    snr_db: float | None = None
    audio: AudioClip | None = field(default=None, repr=False, compare=False)
    model: str = ""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """A class of a model and its probability, 0 to 1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of all classes of `model` for the audio up to `offset_s`, in the model's order."""

    offset_s: float
    scores: tuple[ClassScore, ...]
    model: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the server has processed the stream, and what is needed to resume from there.

    To resume a broken stream, pass its latest Progress as `resume=`, and the audio from `replay_s` on.
    The server has sent all detections that end before `decided_s`.
    """

    received_s: float
    decided_s: float
    replay_s: float
    resume_token: bytes
    draining: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream has ended after all its audio was processed. The last event."""

    audio_s: float
    detections: int


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection is lost, or the server is draining; the next attempt starts in `delay_s`.

    For information only: no event will be missing or repeated. `attempt` counts the attempts of one
    outage from 1.
    """

    cause: str
    attempt: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """The stream has resumed where it broke, `outage_s` after it broke."""

    outage_s: float


@dataclass(frozen=True, slots=True)
class AudioWarning:
    """Something unusual about a recording or a stream: a stable `reason` in UPPER_SNAKE_CASE, and a sentence.

    RECORDING_INCOMPLETE: it is truncated or damaged, and the result is that of the audio before that point.
    A stream has at most one warning of each reason.
    """

    reason: str
    message: str


Event = Started | Detection | Scores | Progress | AudioWarning | Reconnecting | Resumed | Ended


@dataclass(frozen=True, slots=True)
class SpotResult:
    """All detections in a recording of `audio_s` seconds, in the order in which they were decided.

    With several `models`, `model` and `model_version` are those of the first one.
    """

    detections: tuple[Detection, ...]
    audio_s: float
    model: str
    model_version: str
    warnings: tuple[AudioWarning, ...] = ()
    models: tuple[ActiveModel, ...] = ()


@dataclass(frozen=True, slots=True)
class Classification:
    """Classification of a clip: all classes with their highest scores, best first."""

    scores: tuple[ClassScore, ...]
    audio_s: float
    processing_s: float
    model: str
    model_version: str
    warnings: tuple[AudioWarning, ...] = ()

    @property
    def label(self) -> str:
        """The class with the highest score."""
        return self.scores[0].label


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A metric that was measured when a model was trained; `description` states how, and its unit."""

    name: str
    value: float
    description: str


@dataclass(frozen=True, slots=True)
class TrainingSource:
    """A data set that a model was trained on."""

    name: str
    license: str
    attribution: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a server has loaded. `keywords` have their calibrated settings."""

    name: str
    version: str
    default: bool
    keywords: tuple[ActiveKeyword, ...]
    labels: tuple[str, ...]
    sample_rate_hz: int
    step_s: float
    receptive_field_s: float
    metrics: tuple[ModelMetric, ...]
    training_sources: tuple[TrainingSource, ...]
    training_commit: str
    sha256: str
    verified: bool
    """Whether a second network decides which peaks are detections: the thresholds apply to its score."""


class Health(Enum):
    """Health of a server, or of one of its services, as `grpc.health.v1` reports it."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"
