import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_LINEAR16: _ClassVar[Encoding]
    ENCODING_FLOAT32: _ClassVar[Encoding]
    ENCODING_MULAW: _ClassVar[Encoding]
    ENCODING_ALAW: _ClassVar[Encoding]
    ENCODING_FLAC: _ClassVar[Encoding]
    ENCODING_OGG_OPUS: _ClassVar[Encoding]
    ENCODING_WAV: _ClassVar[Encoding]
ENCODING_UNSPECIFIED: Encoding
ENCODING_LINEAR16: Encoding
ENCODING_FLOAT32: Encoding
ENCODING_MULAW: Encoding
ENCODING_ALAW: Encoding
ENCODING_FLAC: Encoding
ENCODING_OGG_OPUS: Encoding
ENCODING_WAV: Encoding

class AudioFormat(_message.Message):
    __slots__ = ("encoding", "sample_rate_hertz", "channel_count", "channel")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    encoding: Encoding
    sample_rate_hertz: int
    channel_count: int
    channel: int
    def __init__(self, encoding: _Optional[_Union[Encoding, str]] = ..., sample_rate_hertz: _Optional[int] = ..., channel_count: _Optional[int] = ..., channel: _Optional[int] = ...) -> None: ...

class KeywordSetting(_message.Message):
    __slots__ = ("keyword", "threshold", "refractory", "model")
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    REFRACTORY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    keyword: str
    threshold: float
    refractory: _duration_pb2.Duration
    model: str
    def __init__(self, keyword: _Optional[str] = ..., threshold: _Optional[float] = ..., refractory: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class KeywordDetection(_message.Message):
    __slots__ = ("keyword", "confidence", "start_offset", "end_offset", "detection_id", "level_dbfs", "snr_db", "model")
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DETECTION_ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_DBFS_FIELD_NUMBER: _ClassVar[int]
    SNR_DB_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    keyword: str
    confidence: float
    start_offset: _duration_pb2.Duration
    end_offset: _duration_pb2.Duration
    detection_id: str
    level_dbfs: float
    snr_db: float
    model: str
    def __init__(self, keyword: _Optional[str] = ..., confidence: _Optional[float] = ..., start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detection_id: _Optional[str] = ..., level_dbfs: _Optional[float] = ..., snr_db: _Optional[float] = ..., model: _Optional[str] = ...) -> None: ...

class ClassScore(_message.Message):
    __slots__ = ("label", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class ScoreFrame(_message.Message):
    __slots__ = ("offset", "scores", "model")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    offset: _duration_pb2.Duration
    scores: _containers.RepeatedCompositeFieldContainer[ClassScore]
    model: str
    def __init__(self, offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., scores: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., model: _Optional[str] = ...) -> None: ...

class ActiveKeyword(_message.Message):
    __slots__ = ("keyword", "threshold", "refractory", "model")
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    REFRACTORY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    keyword: str
    threshold: float
    refractory: _duration_pb2.Duration
    model: str
    def __init__(self, keyword: _Optional[str] = ..., threshold: _Optional[float] = ..., refractory: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class ActiveModel(_message.Message):
    __slots__ = ("name", "version", "step_length", "receptive_field")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEP_LENGTH_FIELD_NUMBER: _ClassVar[int]
    RECEPTIVE_FIELD_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    step_length: _duration_pb2.Duration
    receptive_field: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., step_length: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., receptive_field: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ModelKeyword(_message.Message):
    __slots__ = ("keyword", "threshold", "refractory")
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    REFRACTORY_FIELD_NUMBER: _ClassVar[int]
    keyword: str
    threshold: float
    refractory: _duration_pb2.Duration
    def __init__(self, keyword: _Optional[str] = ..., threshold: _Optional[float] = ..., refractory: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ModelMetric(_message.Message):
    __slots__ = ("name", "value", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    description: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., description: _Optional[str] = ...) -> None: ...

class TrainingSource(_message.Message):
    __slots__ = ("name", "license", "attribution")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    license: str
    attribution: str
    def __init__(self, name: _Optional[str] = ..., license: _Optional[str] = ..., attribution: _Optional[str] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "keywords", "labels", "sample_rate_hertz", "step_length", "receptive_field", "metrics", "training_sources", "training_commit", "sha256", "default", "verified")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    STEP_LENGTH_FIELD_NUMBER: _ClassVar[int]
    RECEPTIVE_FIELD_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_SOURCES_FIELD_NUMBER: _ClassVar[int]
    TRAINING_COMMIT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    keywords: _containers.RepeatedCompositeFieldContainer[ModelKeyword]
    labels: _containers.RepeatedScalarFieldContainer[str]
    sample_rate_hertz: int
    step_length: _duration_pb2.Duration
    receptive_field: _duration_pb2.Duration
    metrics: _containers.RepeatedCompositeFieldContainer[ModelMetric]
    training_sources: _containers.RepeatedCompositeFieldContainer[TrainingSource]
    training_commit: str
    sha256: str
    default: bool
    verified: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., keywords: _Optional[_Iterable[_Union[ModelKeyword, _Mapping]]] = ..., labels: _Optional[_Iterable[str]] = ..., sample_rate_hertz: _Optional[int] = ..., step_length: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., receptive_field: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., metrics: _Optional[_Iterable[_Union[ModelMetric, _Mapping]]] = ..., training_sources: _Optional[_Iterable[_Union[TrainingSource, _Mapping]]] = ..., training_commit: _Optional[str] = ..., sha256: _Optional[str] = ..., default: _Optional[bool] = ..., verified: _Optional[bool] = ...) -> None: ...
