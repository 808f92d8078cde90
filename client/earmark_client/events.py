"""What comes back from a server, as plain values.

Every offset and length is in seconds as a float; offsets count from the start of the stream's audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class ActiveKeyword:
    """A keyword that is listened for, with the settings in force."""

    keyword: str
    threshold: float
    refractory_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """A stream begins. First, before any audio is needed."""

    model: str
    model_version: str
    keywords: tuple[ActiveKeyword, ...]
    step_s: float
    receptive_field_s: float
    request_id: str


@dataclass(frozen=True, slots=True)
class Detection:
    """A keyword was heard between `start_s` and `end_s`.

    The same audio gives the same `id`, in whatever chunks it came and however often it was resumed.
    """

    keyword: str
    confidence: float
    start_s: float
    end_s: float
    id: str


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of a model and its probability, 0 to 1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Every class's score for the audio up to `offset_s`, in the model's order."""

    offset_s: float
    scores: tuple[ClassScore, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream has come, and what it takes to resume it.

    To go on with a stream that broke, pass its newest Progress as `resume=` and the audio from
    `replay_s` on. Every detection that ends before `decided_s` had been sent by then.
    """

    received_s: float
    decided_s: float
    replay_s: float
    resume_token: bytes
    draining: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream has ended after all its audio. Last."""

    audio_s: float
    detections: int


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection is lost, or the server asks to move; the next try comes in `delay_s`.

    For information: nothing of the stream is lost, and nothing will come twice. `attempt` counts
    the tries of one outage from 1.
    """

    cause: str
    attempt: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """The stream goes on where it was, `outage_s` after it broke."""

    outage_s: float


Event = Started | Detection | Scores | Progress | Reconnecting | Resumed | Ended


@dataclass(frozen=True, slots=True)
class SpotResult:
    """Every keyword in a recording of `audio_s` seconds, in the order of their decision."""

    detections: tuple[Detection, ...]
    audio_s: float
    model: str
    model_version: str


@dataclass(frozen=True, slots=True)
class Classification:
    """What a clip sounds like: every class with its best score, highest first."""

    scores: tuple[ClassScore, ...]
    audio_s: float
    processing_s: float
    model: str
    model_version: str

    @property
    def label(self) -> str:
        """The class with the highest score."""
        return self.scores[0].label


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A figure that was measured when a model was made; `description` states how, and the unit."""

    name: str
    value: float
    description: str


@dataclass(frozen=True, slots=True)
class TrainingSource:
    """Data that a model was trained on."""

    name: str
    license: str
    attribution: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a server has loaded. `keywords` carry their calibrated settings."""

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


class Health(Enum):
    """What a server says of itself, or of one of its services, over `grpc.health.v1`."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"
