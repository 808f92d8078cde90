"""Conversions between this package's values and the messages of `earmark.v1`, for both clients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from earmark.v1 import keyword_spotting_pb2 as pb
from earmark.v1 import keyword_spotting_service_pb2 as service_pb
from earmark_audio import MAX_CHANNELS
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2

from earmark_client import events
from earmark_client.audio import Encoding, KeywordSetting, Silence, is_number, pcm_bytes, whole_number
from earmark_client.errors import IncompatibleServerError, InvalidRequestError, RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from google.protobuf.message import Message

    from earmark_client.audio import AudioFormat, Samples
    from earmark_client.stream_options import StreamOptions

Result = TypeVar("Result")

StreamRequest = service_pb.StreamingSpotRequest
StreamResponse = service_pb.StreamingSpotResponse

# A unary call is meant for a word or a sentence. A larger file must be streamed.
_MAX_UPLOAD_BYTES = 64 * 1024 * 1024

# Limit of google.protobuf.Duration.
_LONGEST_S = 315_576_000_000.0

_ENCODINGS = {
    Encoding.LINEAR16: pb.ENCODING_LINEAR16,
    Encoding.FLOAT32: pb.ENCODING_FLOAT32,
    Encoding.MULAW: pb.ENCODING_MULAW,
    Encoding.ALAW: pb.ENCODING_ALAW,
}


@dataclass(frozen=True)
class UnaryCall(Generic[Result]):
    """A unary call: the method's name, the request, and the function that parses the response."""

    method: str
    request: Message
    parse: Callable[[Any], Result]


def stream_config(options: StreamOptions) -> service_pb.StreamingConfig:
    """Build the configuration of a stream's first call."""
    config = service_pb.StreamingConfig(
        **_models(options.model, options.models),
        audio_format=_audio_format(options.audio_format),
        keywords=_keyword_settings(options.keywords),
        request_id=_text("request ID", options.request_id),
    )
    if options.score_interval_s is not None:
        config.score_interval.CopyFrom(_duration("score_interval_s", options.score_interval_s))
    if options.progress_interval_s is not None:
        config.progress_interval.CopyFrom(_duration("progress_interval_s", options.progress_interval_s))
    if options.resume is not None:
        _set_resume_point(config, options.resume)
    return config


def first_request(
    config: service_pb.StreamingConfig, resume: events.Progress | None, request_id: str
) -> StreamRequest:
    """Build the first message of a call, which resumes from a Progress if there is one.

    `request_id`: the stream's ID, used if its configuration has none.
    """
    request = StreamRequest(config=config)
    if resume is not None:
        _set_resume_point(request.config, resume)
    request.config.request_id = config.request_id or request_id
    return request


def _set_resume_point(config: service_pb.StreamingConfig, resume: events.Progress) -> None:
    if not isinstance(resume.resume_token, bytes):
        raise InvalidRequestError(
            f"the resume token must be bytes, not {type(resume.resume_token).__name__}: give the stream's "
            "latest Progress",
            reason="BAD_RESUME_TOKEN",
        )
    config.resume.start_offset.CopyFrom(_duration("replay_s", resume.replay_s, "BAD_RESUME_TOKEN"))
    config.resume.resume_token = resume.resume_token


def audio_request(audio: bytes | Silence) -> StreamRequest:
    """Build the message for a chunk or a silence."""
    if isinstance(audio, Silence):
        return StreamRequest(silence=_duration("the silence", audio.seconds, "BAD_AUDIO"))
    return StreamRequest(audio=audio)


def event(response: StreamResponse) -> events.Event | None:  # noqa: PLR0911 - one for each kind
    """Parse a response of a stream; return None for a kind that this version does not know."""
    match response.WhichOneof("event"):
        case "started":
            return _started(response.started)
        case "detection":
            return _detection(response.detection)
        case "scores":
            scores = response.scores
            return events.Scores(_seconds(scores.offset), _class_scores(scores.scores), scores.model)
        case "progress":
            progress = response.progress
            return events.Progress(
                received_s=_seconds(progress.received_offset),
                decided_s=_seconds(progress.decided_offset),
                replay_s=_seconds(progress.replay_offset),
                resume_token=progress.resume_token,
                draining=progress.draining,
            )
        case "warning":
            return _warning(response.warning)
        case "ended":
            return events.Ended(_seconds(response.ended.audio_duration), response.ended.detection_count)
    return None


def spot(
    audio: str | PathLike[str] | bytes | Samples,
    audio_format: AudioFormat | None,
    *,
    channel: int | None,
    model: str,
    models: Iterable[str],
    keywords: Iterable[str | KeywordSetting],
    request_id: str,
) -> UnaryCall[events.SpotResult]:
    """Build the call that detects keywords in a whole recording."""
    data, message_format = _whole_recording(audio, audio_format, channel)
    request = service_pb.SpotRequest(
        **_models(model, models),
        audio_format=message_format,
        keywords=_keyword_settings(keywords),
        audio=data,
        request_id=_text("request ID", request_id),
    )

    def result(response: service_pb.SpotResponse) -> events.SpotResult:
        check_model_count(len(response.models), len(request.models))
        return _spot_result(response)

    return UnaryCall("Spot", request, result)


def classify(
    audio: str | PathLike[str] | bytes | Samples,
    audio_format: AudioFormat | None,
    *,
    channel: int | None,
    model: str,
    request_id: str,
) -> UnaryCall[events.Classification]:
    """Build the call that classifies a clip."""
    data, message_format = _whole_recording(audio, audio_format, channel)
    request = service_pb.ClassifyRequest(
        model=_text("model", model),
        audio_format=message_format,
        audio=data,
        request_id=_text("request ID", request_id),
    )
    return UnaryCall("Classify", request, _classification)


def list_models() -> UnaryCall[tuple[events.ModelInfo, ...]]:
    """Build the call that lists all loaded models."""
    return UnaryCall(
        "ListModels",
        service_pb.ListModelsRequest(),
        lambda response: tuple(_model_info(model) for model in response.models),
    )


def get_model(name: str) -> UnaryCall[events.ModelInfo]:
    """Build the call that describes one model; an empty name means the default model."""
    return UnaryCall(
        "GetModel",
        service_pb.GetModelRequest(model=_text("model", name)),
        lambda response: _model_info(response.model),
    )


def health_request(service: str) -> health_pb2.HealthCheckRequest:
    """Build the request of both health calls; an empty name means the whole server."""
    return health_pb2.HealthCheckRequest(service=_text("service", service))


def health(response: health_pb2.HealthCheckResponse) -> events.Health:
    """Parse a health response; a status that this version does not know is UNKNOWN."""
    try:
        return events.Health(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
    except ValueError:
        return events.Health.UNKNOWN


def _text(what: str, text: str | None) -> str:
    """Return a text; InvalidRequestError for one that a message cannot hold, such as bytes of a file name."""
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InvalidRequestError(f"the {what} must be a string, not {text!r}", reason="BAD_CONFIG")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"the {what} {text!r} is not valid UTF-8: correct its name") from None
    return text


def check_model_count(count: int, requested: int) -> None:
    """Raise IncompatibleServerError if several models were requested of a server that ignores them."""
    if requested > 1 and count != requested:
        raise IncompatibleServerError(
            "the server's version does not support several models on one stream: name one model"
        )


def _models(model: str, models: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a request that name its models. Every server knows the field of a single one."""
    if isinstance(models, str):
        models = (models,)
    if isinstance(models, bytes) or not hasattr(models or (), "__iter__"):
        raise InvalidRequestError(f"models must be names of models, not {models!r}", reason="BAD_CONFIG")
    names = [_text("model", name) for name in models or ()]
    if model and names and names != [model]:
        raise InvalidRequestError("give either model or models, not both", reason="BAD_CONFIG")
    if len(names) > 1:
        return {"models": names}
    return {"model": names[0] if names else _text("model", model)}


def _audio_format(audio_format: AudioFormat) -> pb.AudioFormat:
    rate_hz, channels = audio_format.sample_rate_hz, audio_format.channels
    # In the message, 0 channels mean "not stated"; from a caller of this library it is an error.
    if channels < 1:
        raise InvalidRequestError(f"channels must be 1 to 8, not {channels}", reason="BAD_AUDIO")
    try:
        return pb.AudioFormat(
            encoding=_ENCODINGS[audio_format.encoding],
            sample_rate_hertz=rate_hz,
            channel_count=channels,
            channel=audio_format.channel or 0,
        )
    except ValueError as error:  # more than 32 bits
        raise InvalidRequestError(
            f"{rate_hz} Hz, {channels} channels: {error}", reason="UNSUPPORTED_SAMPLE_RATE"
        ) from error


def _keyword_settings(keywords: Iterable[str | KeywordSetting]) -> list[pb.KeywordSetting]:
    if isinstance(keywords, str | KeywordSetting):
        keywords = (keywords,)
    if keywords is not None and (isinstance(keywords, bytes) or not hasattr(keywords, "__iter__")):
        raise InvalidRequestError(
            f"keywords must be names or KeywordSettings, not {keywords!r}", reason="UNKNOWN_KEYWORD"
        )
    settings = []
    for keyword in keywords or ():
        setting = keyword if isinstance(keyword, KeywordSetting) else KeywordSetting(keyword)
        message = pb.KeywordSetting(
            keyword=_text("keyword", setting.keyword), model=_text("model", setting.model)
        )
        if setting.threshold is not None:
            if not is_number(setting.threshold):
                raise InvalidRequestError(
                    f"the threshold of {setting.keyword} must be a number, not {setting.threshold!r}",
                    reason="BAD_THRESHOLD",
                )
            message.threshold = setting.threshold
        if setting.refractory_s is not None:
            name = f"the refractory period of {setting.keyword}"
            message.refractory.CopyFrom(_duration(name, setting.refractory_s, "BAD_THRESHOLD"))
        settings.append(message)
    return settings


def _whole_recording(
    audio: str | PathLike[str] | bytes | Samples, audio_format: AudioFormat | None, channel: int | None
) -> tuple[bytes, pb.AudioFormat | None]:
    """Return a recording's bytes and, for raw samples, their format; a file states its own."""
    of_file = None if channel is None else _channel_of_file(channel)
    if isinstance(audio, str | PathLike):
        from earmark_client.recording import recording_path  # it loads the decoders

        return _file_bytes(recording_path(audio)), of_file
    if audio_format is not None:
        return pcm_bytes(audio, audio_format.encoding, audio_format.channels), _audio_format(audio_format)
    if isinstance(audio, bytearray | memoryview):
        audio = bytes(audio)
    if not isinstance(audio, bytes):
        raise InvalidRequestError(
            "the sample rate of an array is unknown: give sample_rate_hz", reason="UNSUPPORTED_SAMPLE_RATE"
        )
    return audio, of_file


def _channel_of_file(channel: int) -> pb.AudioFormat:
    """Return the format of a file of which one channel is to be processed."""
    number = whole_number("channel", channel, "BAD_AUDIO")
    if not 1 <= number <= MAX_CHANNELS:
        raise InvalidRequestError(f"channel must be 1 to {MAX_CHANNELS}, not {number}", reason="BAD_AUDIO")
    return pb.AudioFormat(channel=number)


def _file_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_UPLOAD_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise RecordingError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _MAX_UPLOAD_BYTES:
        raise RecordingError(
            f"{path}: the file has more than {_MAX_UPLOAD_BYTES >> 20} MB, too many for one call: "
            "stream it instead (Client.stream, `earmark spot`)",
            reason="MESSAGE_TOO_LARGE",
        )
    if not data:
        raise RecordingError(f"{path}: the recording is empty: it has no bytes")
    return data


def _started(started: service_pb.StreamStarted) -> events.Started:
    # A server that knows one model per stream only states it once.
    first = events.ActiveModel(
        started.model,
        started.model_version,
        _seconds(started.step_length),
        _seconds(started.receptive_field),
    )
    return events.Started(
        model=started.model,
        model_version=started.model_version,
        keywords=tuple(_active_keyword(one, one.model or started.model) for one in started.keywords),
        step_s=first.step_s,
        receptive_field_s=first.receptive_field_s,
        request_id=started.request_id,
        models=_active_models(started.models) or (first,),
    )


def _active_models(models: Iterable[pb.ActiveModel]) -> tuple[events.ActiveModel, ...]:
    return tuple(
        events.ActiveModel(
            model.name, model.version, _seconds(model.step_length), _seconds(model.receptive_field)
        )
        for model in models
    )


def _spot_result(response: service_pb.SpotResponse) -> events.SpotResult:
    return events.SpotResult(
        detections=tuple(_detection(detection, response.model) for detection in response.detections),
        audio_s=_seconds(response.audio_duration),
        model=response.model,
        model_version=response.model_version,
        warnings=_warnings(response.warnings),
        models=_active_models(response.models),
    )


def _classification(response: service_pb.ClassifyResponse) -> events.Classification:
    if not response.scores:
        raise IncompatibleServerError("the server violates the API: a classification must have scores")
    return events.Classification(
        scores=_class_scores(response.scores),
        audio_s=_seconds(response.audio_duration),
        processing_s=_seconds(response.processing_duration),
        model=response.model,
        model_version=response.model_version,
        warnings=_warnings(response.warnings),
    )


def _warnings(warnings: Iterable[pb.Warning]) -> tuple[events.AudioWarning, ...]:
    return tuple(_warning(warning) for warning in warnings)


def _warning(warning: pb.Warning) -> events.AudioWarning:
    return events.AudioWarning(warning.reason, warning.message)


def _model_info(model: pb.Model) -> events.ModelInfo:
    return events.ModelInfo(
        name=model.name,
        version=model.version,
        default=model.default,
        keywords=tuple(_active_keyword(one, model.name) for one in model.keywords),
        labels=tuple(model.labels),
        sample_rate_hz=model.sample_rate_hertz,
        step_s=_seconds(model.step_length),
        receptive_field_s=_seconds(model.receptive_field),
        metrics=tuple(
            events.ModelMetric(metric.name, metric.value, metric.description) for metric in model.metrics
        ),
        training_sources=tuple(
            events.TrainingSource(source.name, source.license, source.attribution)
            for source in model.training_sources
        ),
        training_commit=model.training_commit,
        sha256=model.sha256,
        verified=model.verified,
    )


def _detection(detection: pb.KeywordDetection, model: str = "") -> events.Detection:
    return events.Detection(
        keyword=detection.keyword,
        confidence=_score(detection.confidence),
        start_s=_seconds(detection.start_offset),
        end_s=_seconds(detection.end_offset),
        id=detection.detection_id,
        level_dbfs=_decibels(detection.level_dbfs) if detection.HasField("level_dbfs") else None,
        snr_db=_decibels(detection.snr_db) if detection.HasField("snr_db") else None,
        model=detection.model or model,
    )


def _active_keyword(active: pb.ActiveKeyword | pb.ModelKeyword, model: str) -> events.ActiveKeyword:
    # The message has a 32-bit float with seven digits: 0.966, not 0.9660000205039978.
    return events.ActiveKeyword(
        active.keyword, round(active.threshold, 7), _seconds(active.refractory), model
    )


def _class_scores(scores: Iterable[pb.ClassScore]) -> tuple[events.ClassScore, ...]:
    return tuple(events.ClassScore(score.label, _score(score.score)) for score in scores)


def _score(score: float) -> float:
    """Return a score. Raises IncompatibleServerError for NaN and infinity."""
    if not math.isfinite(score):
        raise IncompatibleServerError(f"the server violates the API: a score is {score}")
    return score


def _decibels(value: float) -> float:
    """Return a level, which the message has as a 32-bit float: -31.4, not -31.399999618530273."""
    if not math.isfinite(value):
        raise IncompatibleServerError(f"the server violates the API: a level is {value}")
    return round(value, 4)


def _duration(name: str, seconds: float, reason: str = "BAD_CONFIG") -> Duration:
    """Convert seconds to a Duration, rounded to nanoseconds: exact both ways up to 100 days.

    Raises InvalidRequestError, which states the argument and the reason of the API, for any other value.
    """
    if not is_number(seconds) or not abs(seconds) < _LONGEST_S:  # NaN too
        raise InvalidRequestError(
            f"{name} must be a finite number of seconds, not {seconds!r}", reason=reason
        )
    whole, nanos = divmod(round(seconds * 1e9), 1_000_000_000)
    if whole < 0 and nanos:  # both parts must have the same sign
        whole, nanos = whole + 1, nanos - 1_000_000_000
    return Duration(seconds=whole, nanos=nanos)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
