import datetime

from earmark.v1 import keyword_spotting_pb2 as _keyword_spotting_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StreamingSpotRequest(_message.Message):
    __slots__ = ("config", "audio", "silence")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    SILENCE_FIELD_NUMBER: _ClassVar[int]
    config: StreamingConfig
    audio: bytes
    silence: _duration_pb2.Duration
    def __init__(self, config: _Optional[_Union[StreamingConfig, _Mapping]] = ..., audio: _Optional[bytes] = ..., silence: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StreamingConfig(_message.Message):
    __slots__ = ("model", "audio_format", "keywords", "score_interval", "progress_interval", "resume", "request_id", "models")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    SCORE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    audio_format: _keyword_spotting_pb2.AudioFormat
    keywords: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.KeywordSetting]
    score_interval: _duration_pb2.Duration
    progress_interval: _duration_pb2.Duration
    resume: ResumePoint
    request_id: str
    models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., audio_format: _Optional[_Union[_keyword_spotting_pb2.AudioFormat, _Mapping]] = ..., keywords: _Optional[_Iterable[_Union[_keyword_spotting_pb2.KeywordSetting, _Mapping]]] = ..., score_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., progress_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resume: _Optional[_Union[ResumePoint, _Mapping]] = ..., request_id: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ...) -> None: ...

class ResumePoint(_message.Message):
    __slots__ = ("start_offset", "resume_token")
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    start_offset: _duration_pb2.Duration
    resume_token: bytes
    def __init__(self, start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resume_token: _Optional[bytes] = ...) -> None: ...

class StreamingSpotResponse(_message.Message):
    __slots__ = ("started", "detection", "scores", "progress", "ended", "warning")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DETECTION_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    started: StreamStarted
    detection: _keyword_spotting_pb2.KeywordDetection
    scores: _keyword_spotting_pb2.ScoreFrame
    progress: Progress
    ended: StreamEnded
    warning: _keyword_spotting_pb2.Warning
    def __init__(self, started: _Optional[_Union[StreamStarted, _Mapping]] = ..., detection: _Optional[_Union[_keyword_spotting_pb2.KeywordDetection, _Mapping]] = ..., scores: _Optional[_Union[_keyword_spotting_pb2.ScoreFrame, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., ended: _Optional[_Union[StreamEnded, _Mapping]] = ..., warning: _Optional[_Union[_keyword_spotting_pb2.Warning, _Mapping]] = ...) -> None: ...

class StreamStarted(_message.Message):
    __slots__ = ("model", "model_version", "keywords", "step_length", "receptive_field", "request_id", "models")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    STEP_LENGTH_FIELD_NUMBER: _ClassVar[int]
    RECEPTIVE_FIELD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    keywords: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.ActiveKeyword]
    step_length: _duration_pb2.Duration
    receptive_field: _duration_pb2.Duration
    request_id: str
    models: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.ActiveModel]
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., keywords: _Optional[_Iterable[_Union[_keyword_spotting_pb2.ActiveKeyword, _Mapping]]] = ..., step_length: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., receptive_field: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_keyword_spotting_pb2.ActiveModel, _Mapping]]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("received_offset", "decided_offset", "replay_offset", "resume_token", "draining")
    RECEIVED_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DECIDED_OFFSET_FIELD_NUMBER: _ClassVar[int]
    REPLAY_OFFSET_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    received_offset: _duration_pb2.Duration
    decided_offset: _duration_pb2.Duration
    replay_offset: _duration_pb2.Duration
    resume_token: bytes
    draining: bool
    def __init__(self, received_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., decided_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., replay_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resume_token: _Optional[bytes] = ..., draining: _Optional[bool] = ...) -> None: ...

class StreamEnded(_message.Message):
    __slots__ = ("audio_duration", "detection_count")
    AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    DETECTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    audio_duration: _duration_pb2.Duration
    detection_count: int
    def __init__(self, audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detection_count: _Optional[int] = ...) -> None: ...

class SpotRequest(_message.Message):
    __slots__ = ("model", "audio_format", "keywords", "audio", "request_id", "models")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    audio_format: _keyword_spotting_pb2.AudioFormat
    keywords: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.KeywordSetting]
    audio: bytes
    request_id: str
    models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., audio_format: _Optional[_Union[_keyword_spotting_pb2.AudioFormat, _Mapping]] = ..., keywords: _Optional[_Iterable[_Union[_keyword_spotting_pb2.KeywordSetting, _Mapping]]] = ..., audio: _Optional[bytes] = ..., request_id: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ...) -> None: ...

class SpotResponse(_message.Message):
    __slots__ = ("detections", "audio_duration", "model", "model_version", "warnings", "models")
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    detections: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.KeywordDetection]
    audio_duration: _duration_pb2.Duration
    model: str
    model_version: str
    warnings: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.Warning]
    models: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.ActiveModel]
    def __init__(self, detections: _Optional[_Iterable[_Union[_keyword_spotting_pb2.KeywordDetection, _Mapping]]] = ..., audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., warnings: _Optional[_Iterable[_Union[_keyword_spotting_pb2.Warning, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[_keyword_spotting_pb2.ActiveModel, _Mapping]]] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "audio_format", "audio", "request_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    audio_format: _keyword_spotting_pb2.AudioFormat
    audio: bytes
    request_id: str
    def __init__(self, model: _Optional[str] = ..., audio_format: _Optional[_Union[_keyword_spotting_pb2.AudioFormat, _Mapping]] = ..., audio: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("scores", "audio_duration", "processing_duration", "model", "model_version", "warnings")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_DURATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.ClassScore]
    audio_duration: _duration_pb2.Duration
    processing_duration: _duration_pb2.Duration
    model: str
    model_version: str
    warnings: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.Warning]
    def __init__(self, scores: _Optional[_Iterable[_Union[_keyword_spotting_pb2.ClassScore, _Mapping]]] = ..., audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., processing_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., warnings: _Optional[_Iterable[_Union[_keyword_spotting_pb2.Warning, _Mapping]]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_keyword_spotting_pb2.Model]
    def __init__(self, models: _Optional[_Iterable[_Union[_keyword_spotting_pb2.Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _keyword_spotting_pb2.Model
    def __init__(self, model: _Optional[_Union[_keyword_spotting_pb2.Model, _Mapping]] = ...) -> None: ...
