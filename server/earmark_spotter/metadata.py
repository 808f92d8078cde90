"""The metadata of a model file: a JSON document in the ONNX metadata, and its validation.

The document is stored under the ONNX metadata key `earmark`. `parse_metadata` rejects an
invalid document and names the field by its path, such as `keywords.yes.threshold`.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from earmark_audio.energy_gate import GateSettings

from earmark_spotter.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA_VERSION = 1
"""The only version of the document that this release supports."""

MAX_STEP_MS = 100
"""Upper bound on the step: a longer one would delay detections noticeably."""

MAX_RECEPTIVE_FIELD_S = 10
"""Upper bound on the receptive field: clients must keep a little more audio than this to resume."""

CERTAIN_SCORE = 0.99
"""Default of the score above which a peak is certain (docs/lab-notes/cost.md)."""


class TextRule(NamedTuple):
    """The pattern of a text in the metadata, and its meaning in words."""

    pattern: re.Pattern[str]
    meaning: str


NAME_RULE = TextRule(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
    "1 to 64 letters (A to Z), digits, '.', '_' or '-', beginning with a letter or a digit",
)
"""The rule of a model's name and of its version."""

LABEL_RULE = TextRule(
    re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,62}[^\s\x00-\x1f\x7f])?"),
    "1 to 64 printable characters that neither begin nor end with a space",
)
"""The rule of a label, such as a keyword."""


@dataclass(frozen=True, slots=True)
class KeywordInfo:
    """The calibrated settings of a keyword.

    `threshold`: the smoothed score, 0 to 1 exclusive, at which the keyword is detected.
    `refractory_ms`: the time after a detection in which the keyword is not detected again.
    `end_lag_ms`: the delay between the end of the word and the peak of its score.
    `duration_ms`: the typical duration of the word.
    """

    threshold: float
    refractory_ms: float
    end_lag_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """Settings of the detector that apply to all keywords.

    `hold_ms`: the peak hold, the time without a higher score after which a peak is a detection.
    `separation_ms`: the time after a detection in which no other keyword is detected.
    `smoothing_frames`: the number of frames that a score is the mean of. A score that is low cannot reach its
    threshold sooner than this allows, so that inference on its stream can wait.
    """

    hold_ms: float
    separation_ms: float
    smoothing_frames: int = 1


@dataclass(frozen=True, slots=True)
class VerifierInfo:
    """Settings of the verifier, which checks the peaks of the first network's scores.

    `window_samples`: the length of the audio that it needs. `proposal_threshold`: the first network's score,
    0 to 1 exclusive, at which a peak is verified. `certain_score`: the first network's score above which a
    peak is certain, so that this score is final; 1 to verify every peak. `encoder_sha256`: the SHA-256 of the
    speech encoder whose features the last graph needs; None for a model without such a graph.
    `encoder_threshold`, `encoder_certain_score`: the lowest and the highest score so far at which the last
    graph is used; the highest is `certain_score` if it is None.
    """

    window_samples: int
    proposal_threshold: float
    certain_score: float = CERTAIN_SCORE
    encoder_sha256: str | None = None
    encoder_threshold: float = 0.0
    encoder_certain_score: float | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure measured when the model was trained; the description states its unit."""

    name: str
    value: float
    description: str


@dataclass(frozen=True, slots=True)
class TrainingSource:
    """A data set that the model was trained on, with its licence and attribution."""

    name: str
    license: str
    attribution: str


@dataclass(frozen=True, slots=True)
class TrainingInfo:
    """The origin of the model: its training data, and the commit of the training code."""

    sources: tuple[TrainingSource, ...]
    commit: str


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The metadata of a model.

    Lengths in samples are at `sample_rate_hz`. `labels` are the classes in the order of
    the scores; `keywords` are those of them that can be detected, in the same order.
    `receptive_field_samples` is the length of the audio that one score depends on.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    keywords: Mapping[str, KeywordInfo]
    sample_rate_hz: int
    step_samples: int
    frame_samples: int
    receptive_field_samples: int
    detector: DetectorInfo
    metrics: tuple[Metric, ...]
    training: TrainingInfo
    gate: GateSettings | None = None
    """The gate in front of the model, which skips nearly silent audio; None for a model without one."""
    verifier: VerifierInfo | None = None
    """The verifier, whose final score must reach the threshold; None for a model without one."""

    @property
    def keyword_names(self) -> tuple[str, ...]:
        """The keywords, in the order of the labels."""
        return tuple(self.keywords)

    @property
    def keyword_indices(self) -> tuple[int, ...]:
        """The positions of the keywords among the labels, ascending."""
        return tuple(i for i, label in enumerate(self.labels) if label in self.keywords)

    @property
    def frames_per_step(self) -> int:
        """Score frames per step."""
        return self.step_samples // self.frame_samples

    @property
    def step_ms(self) -> float:
        """The length of a step in milliseconds."""
        return self.step_samples * 1000 / self.sample_rate_hz

    @property
    def receptive_field_ms(self) -> float:
        """The length of the audio that one score depends on, in milliseconds."""
        return self.receptive_field_samples * 1000 / self.sample_rate_hz

    def samples_from_ms(self, milliseconds: float) -> int:
        """Convert a duration to samples at the model's rate, rounded to the nearest."""
        return round(milliseconds * self.sample_rate_hz / 1000)


def parse_metadata(document: str) -> ModelMetadata:
    """Parse and validate the JSON document of a model file.

    Raises ModelError, naming the field, for a document that is not JSON, has another schema
    version, lacks a field, or has a field of a wrong type, out of range, or inconsistent with
    another field. Unknown fields are ignored.
    """
    try:
        parsed = json.loads(document, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The model's metadata `earmark` is not a JSON document: {error}") from error
    root = _Node("earmark", parsed)

    version = root["schema_version"].integer(1)
    if version != SCHEMA_VERSION:
        root["schema_version"].reject(f"is {version}, but this release supports version {SCHEMA_VERSION}")

    sample_rate_hz = root["sample_rate_hz"].integer(8000, 48_000)
    frame_samples = root["frame_samples"].integer(1)
    step_samples = root["step_samples"].integer(1, sample_rate_hz * MAX_STEP_MS // 1000)
    if step_samples % frame_samples:
        root["step_samples"].reject(f"is {step_samples}, not a multiple of frame_samples ({frame_samples})")

    labels = tuple(node.text(LABEL_RULE) for node in root["labels"].items(2))
    if len(set(labels)) != len(labels):
        root["labels"].reject("contains a label twice")

    return ModelMetadata(
        name=root["name"].text(NAME_RULE),
        version=root["version"].text(NAME_RULE),
        labels=labels,
        keywords=_parse_keywords(root["keywords"], labels),
        sample_rate_hz=sample_rate_hz,
        step_samples=step_samples,
        frame_samples=frame_samples,
        receptive_field_samples=root["receptive_field_samples"].integer(
            frame_samples, sample_rate_hz * MAX_RECEPTIVE_FIELD_S
        ),
        detector=DetectorInfo(
            hold_ms=root["detector"]["hold_ms"].number(0, 2000),
            separation_ms=root["detector"]["separation_ms"].number(0, 60_000),
            smoothing_frames=(
                root["detector"]["smoothing_frames"].integer(1, 1000)
                if root["detector"].has("smoothing_frames")
                else 1
            ),
        ),
        metrics=tuple(
            Metric(
                name=node["name"].text(),
                value=node["value"].number(),
                description=node["description"].text(),
            )
            for node in root["metrics"].items()
        ),
        training=TrainingInfo(
            sources=tuple(
                TrainingSource(
                    name=node["name"].text(),
                    license=node["license"].text(),
                    attribution=node["attribution"].text(),
                )
                for node in root["training"]["sources"].items()
            ),
            commit=root["training"]["commit"].text(),
        ),
        gate=_parse_gate(root["gate"]) if root.has("gate") else None,
        verifier=_parse_verifier(root["verifier"], sample_rate_hz) if root.has("verifier") else None,
    )


def _parse_gate(node: _Node) -> GateSettings:
    margins = [margin.number(0, 60) for margin in node["margins_db"].items(3)]
    if len(margins) != 3:
        node["margins_db"].reject(f"must have 3 entries, but has {len(margins)}")
    return GateSettings((margins[0], margins[1], margins[2]), node["hold_ms"].number(0, 60_000))


def _parse_verifier(node: _Node, sample_rate_hz: int) -> VerifierInfo:
    return VerifierInfo(
        window_samples=node["window_samples"].integer(1, sample_rate_hz * MAX_RECEPTIVE_FIELD_S),
        proposal_threshold=_parse_threshold(node["proposal_threshold"]),
        certain_score=node["certain_score"].number(0.51, 1) if node.has("certain_score") else CERTAIN_SCORE,
        encoder_sha256=node["encoder_sha256"].text() if node.has("encoder_sha256") else None,
        encoder_threshold=node["encoder_threshold"].number(0, 1) if node.has("encoder_threshold") else 0.0,
        encoder_certain_score=(
            node["encoder_certain_score"].number(0.51, 1) if node.has("encoder_certain_score") else None
        ),
    )


def _parse_threshold(node: _Node) -> float:
    threshold = node.number(0, 1)
    if not 0 < threshold < 1:
        node.reject(f"must be between 0 and 1, both excluded, but is {threshold}")
    return threshold


def _parse_keywords(node: _Node, labels: tuple[str, ...]) -> Mapping[str, KeywordInfo]:
    keywords = {}
    for name, fields in node.entries(1):
        if name not in labels:
            fields.reject("is not one of the labels")
        keywords[name] = KeywordInfo(
            threshold=_parse_threshold(fields["threshold"]),
            refractory_ms=fields["refractory_ms"].number(0, 60_000),
            end_lag_ms=fields["end_lag_ms"].number(0, 5000),
            duration_ms=fields["duration_ms"].number(1, 10_000),
        )
    return MappingProxyType({label: keywords[label] for label in labels if label in keywords})


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a valid JSON number")


class _Node:
    """A value in the document together with its path, which error messages contain."""

    def __init__(self, path: str, value: Any) -> None:
        self._path = path
        self._value = value

    def reject(self, problem: str) -> NoReturn:
        raise ModelError(f"The model's metadata field `{self._path}` {problem}.")

    def has(self, key: str) -> bool:
        return self._typed(dict, "an object").get(key) is not None

    def __getitem__(self, key: str) -> _Node:
        fields = self._typed(dict, "an object")
        if key not in fields:
            self._child(key, None).reject("is missing")
        return self._child(key, fields[key])

    def entries(self, minimum: int) -> Iterator[tuple[str, _Node]]:
        fields = self._typed(dict, "an object")
        if len(fields) < minimum:
            self.reject(f"must have at least {minimum} entry")
        for key, value in fields.items():
            yield key, self._child(key, value)

    def items(self, minimum: int = 0) -> Iterator[_Node]:
        values = self._typed(list, "a list")
        if len(values) < minimum:
            self.reject(f"must have at least {minimum} entries, but has {len(values)}")
        for i, value in enumerate(values):
            yield self._child(str(i), value)

    def text(self, rule: TextRule | None = None) -> str:
        value: str = self._typed(str, "a string")
        if any("\ud800" <= character <= "\udfff" for character in value):
            self.reject("contains an unpaired surrogate, which is not a character")
        if rule is not None and not rule.pattern.fullmatch(value):
            self.reject(f"is {value!r}, but must be {rule.meaning}")
        return value

    def integer(self, low: int, high: int | None = None) -> int:
        value: int = self._typed(int, "a whole number")
        self._check_range(value, low, high)
        return value

    def number(self, low: float | None = None, high: float | None = None) -> float:
        value = self._typed((int, float), "a number")
        # Python parses a JSON number such as 1e999 as infinity, and one of 400 digits as an integer.
        if not -sys.float_info.max <= value <= sys.float_info.max:
            self.reject("must be finite")
        self._check_range(value, low, high)
        return float(value)

    def _check_range(self, value: float, low: float | None, high: float | None) -> None:
        if low is not None and value < low:
            self.reject(f"is {value}, but must be at least {low}")
        if high is not None and value > high:
            self.reject(f"is {value}, but must be at most {high}")

    def _typed(self, kind: type | tuple[type, ...], wanted: str) -> Any:
        # bool is a subclass of int, but `true` is not a number in a model file.
        if not isinstance(self._value, kind) or isinstance(self._value, bool):
            self.reject(f"must be {wanted}, but is {self._value!r:.60}")
        return self._value

    def _child(self, key: str, value: Any) -> _Node:
        return _Node(f"{self._path}.{key}".removeprefix("earmark."), value)
