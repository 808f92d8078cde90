"""Between the messages of earmark.v1 and plain values: the one file that knows the generated classes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_spotter import (
    ActiveKeyword,
    AudioFormat,
    Container,
    Detection,
    Encoding,
    EncodingError,
    KeywordSetting,
    ResumePoint,
    SpotterError,
    offset_ns,
    resolve_settings,
)
from earmark_spotter.stream import NANOSECONDS
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message

from earmark_server.inference.events import ClipScores, Finished, Progress, Scores
from earmark_server.inference.pending_audio import Silence
from earmark_server.inference.session import SpottingSession
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from earmark_spotter import ModelMetadata, SpotterModel

    from earmark_server.inference.events import Event

SERVICE = rpcs.DESCRIPTOR.services_by_name["KeywordSpottingService"]

_REQUESTS: dict[str, type[Message]] = {
    "StreamingSpot": rpcs.StreamingSpotRequest,
    "Spot": rpcs.SpotRequest,
    "Classify": rpcs.ClassifyRequest,
    "ListModels": rpcs.ListModelsRequest,
    "GetModel": rpcs.GetModelRequest,
}
_ENCODINGS = {
    messages.ENCODING_LINEAR16: Encoding.LINEAR16,
    messages.ENCODING_FLOAT32: Encoding.FLOAT32,
    messages.ENCODING_MULAW: Encoding.MULAW,
    messages.ENCODING_ALAW: Encoding.ALAW,
}
_CONTAINERS = {
    messages.ENCODING_UNSPECIFIED: None,
    messages.ENCODING_FLAC: Container.FLAC,
    messages.ENCODING_OGG_OPUS: Container.OGG,
    messages.ENCODING_WAV: Container.WAV,
}
_MAX_DURATION_S = 315_576_000_000  # of google.protobuf.Duration
_MAX_DURATION_NS = _MAX_DURATION_S * NANOSECONDS
_MAX_SILENCE_NS = 3600 * NANOSECONDS
# Of a message, beside its audio: many times what all keywords of a model and a resume token take.
_MAX_FIELDS_BYTES = 64 * 1024
_LENGTH_DELIMITED = 2  # protobuf's wire type of bytes, strings and messages
_MIN_PROGRESS_INTERVAL_NS = NANOSECONDS // 10
_DEFAULT_PROGRESS_INTERVAL_NS = NANOSECONDS

# What comes in.


def reader(rpc: str, limit: int) -> Callable[[bytes], Any]:
    """Make a reader of an RPC's requests; what it cannot read, it gives as the error to be raised for it."""
    kind = _REQUESTS[rpc]
    audio = kind.DESCRIPTOR.fields_by_name["audio"].number if "audio" in kind.DESCRIPTOR.fields_by_name else 0

    def read(serialized: bytes) -> Message | CallError:
        if len(serialized) > limit:
            return CallError(
                "MESSAGE_TOO_LARGE",
                f"A message may have {limit} bytes here, but has {len(serialized)}: send shorter pieces.",
            )
        if len(serialized) > _MAX_FIELDS_BYTES and _has_more_fields(serialized, audio):
            return CallError(
                "MESSAGE_TOO_LARGE",
                f"A message may have {_MAX_FIELDS_BYTES} bytes beside its audio, but has more: name fewer "
                "keywords.",
            )
        try:
            return kind.FromString(serialized)
        except DecodeError:
            return CallError("BAD_CONFIG", f"The bytes of a message are not a {kind.DESCRIPTOR.full_name}.")

    return read


def _has_more_fields(serialized: bytes, audio: int) -> bool:
    """Whether a message has more than it may beside field number `audio`, as far as it can be read.

    To be known before it is parsed: 2 bytes can make an object of 50.
    """
    position = others = 0
    try:
        while position < len(serialized) and others <= _MAX_FIELDS_BYTES:
            start = position
            key, position = _varint(serialized, position)
            if key & 7 != _LENGTH_DELIMITED:
                return True  # no field of ours, nor of a message as long as this
            size, position = _varint(serialized, position)
            position += size
            others += position - start - (size if key >> 3 == audio else 0)
    except IndexError:
        pass  # It ends too soon, as parsing it will tell.
    return others > _MAX_FIELDS_BYTES


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a number as protobuf writes it; give it, and where it ends."""
    value = shift = 0
    while (byte := data[position]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if shift > 63:
            raise IndexError
    return value | byte << shift, position + 1


def write(message: Message) -> bytes:
    """Serialize an answer."""
    return message.SerializeToString()


def readable(request: Any) -> Any:
    """Give the message that a reader gave, or raise the error that it gave instead."""
    if isinstance(request, CallError):
        raise request
    return request


@contextlib.contextmanager
def blaming(field: str) -> Iterator[None]:
    """Say which field of the request is at fault for what the spotter refuses in the block."""
    try:
        yield
    except SpotterError as error:
        raise CallError(error.reason, str(error), field=field) from error


def stream_format(stated: messages.AudioFormat, field: str) -> AudioFormat:
    """Read the form of raw samples."""
    encoding = _ENCODINGS.get(stated.encoding)
    if encoding is None:
        raw = ", ".join(_encoding_name(number) for number in _ENCODINGS)
        with blaming(f"{field}.encoding"):
            raise EncodingError(f"A stream cannot be {_encoding_name(stated.encoding)}: use one of {raw}.")
    with blaming(f"{field}.sample_rate_hertz"):
        AudioFormat(encoding, stated.sample_rate_hertz)
    with blaming(f"{field}.channel_count"):
        return AudioFormat(encoding, stated.sample_rate_hertz, stated.channel_count or 1)


def is_raw(stated: messages.AudioFormat) -> bool:
    """Whether audio has samples only, and no file around them."""
    return stated.encoding in _ENCODINGS


def container(stated: messages.AudioFormat) -> Container | None:
    """Read what kind of file a recording is said to be; None: the file tells."""
    if stated.encoding not in _CONTAINERS:
        known = ", ".join(_encoding_name(number) for number in (*_ENCODINGS, *_CONTAINERS))
        with blaming("audio_format.encoding"):
            raise EncodingError(f"There is no encoding {stated.encoding}: use one of {known}.")
    return _CONTAINERS[stated.encoding]


def active_keywords(
    meta: ModelMetadata, stated: Sequence[messages.KeywordSetting], field: str, limit: int
) -> tuple[ActiveKeyword, ...]:
    """Read what to listen for, `limit` keywords at most; `field` is where it is in the request."""
    if len(stated) > limit:
        message = f"A request may name {limit} keywords here, but names {len(stated)}."
        raise CallError("BAD_CONFIG", message, field=field)
    settings: list[KeywordSetting] = []
    for i, one in enumerate(stated):
        place = f"{field}[{i}]"
        threshold = one.threshold if one.HasField("threshold") else None
        refractory_ms = None
        if one.HasField("refractory"):
            refractory_ns = _nanoseconds(
                one.refractory, f"{place}.refractory", 0, 60 * NANOSECONDS, "BAD_THRESHOLD"
            )
            refractory_ms = refractory_ns / 1e6
        settings.append(KeywordSetting(one.keyword, threshold, refractory_ms))
        # One more at a time, so that the one at fault is known; so many can only repeat themselves.
        with blaming(place):
            resolve_settings(meta, settings)
    return resolve_settings(meta, settings)


def spotting(
    model: SpotterModel,
    audio_format: AudioFormat,
    active: Sequence[ActiveKeyword],
    config: rpcs.StreamingConfig,
    resume_keys: Sequence[bytes] = (),
) -> SpottingSession:
    """Read how a stream is to be reported on, and where it goes on."""
    score_ns, progress_ns, resume = None, _DEFAULT_PROGRESS_INTERVAL_NS, None
    if config.HasField("score_interval"):
        field = "config.score_interval"
        score_ns = _nanoseconds(config.score_interval, field, 1, _MAX_DURATION_NS, "BAD_CONFIG")
    if config.HasField("progress_interval"):
        field, least = "config.progress_interval", _MIN_PROGRESS_INTERVAL_NS
        progress_ns = _nanoseconds(config.progress_interval, field, least, _MAX_DURATION_NS, "BAD_CONFIG")
    if config.HasField("resume"):
        field = "config.resume.start_offset"
        start_ns = _nanoseconds(config.resume.start_offset, field, 0, _MAX_DURATION_NS, "BAD_RESUME_TOKEN")
        resume = ResumePoint(start_ns, config.resume.resume_token)
    with blaming("config.resume"):
        return SpottingSession(
            model,
            audio_format,
            active,
            resume=resume,
            resume_keys=resume_keys,
            score_interval_ns=score_ns,
            progress_interval_ns=progress_ns,
        )


def silence(stated: Duration, rate_hz: int) -> tuple[Silence, int]:
    """Read a pause, as samples at the stream's rate and as nanoseconds."""
    length_ns = _nanoseconds(stated, "silence", 0, _MAX_SILENCE_NS, "BAD_AUDIO")
    return Silence(round(length_ns * rate_hz / NANOSECONDS)), length_ns


def _nanoseconds(duration: Duration, field: str, low_ns: int, high_ns: int, reason: str) -> int:
    seconds, nanos = duration.seconds, duration.nanos
    formed = abs(seconds) <= _MAX_DURATION_S and abs(nanos) < NANOSECONDS and seconds * nanos >= 0
    total = seconds * NANOSECONDS + nanos
    if formed and low_ns <= total <= high_ns:
        return total
    raise CallError(
        reason,
        f"`{field}` must be {low_ns / NANOSECONDS:g} to {high_ns / NANOSECONDS:g} s, "
        f"but is {seconds} s and {nanos} ns.",
        field=field,
    )


def _encoding_name(number: int) -> str:
    known = messages.Encoding.DESCRIPTOR.values_by_number.get(number)
    return str(number) if known is None else str(known.name)


# What goes out.


def _duration(nanoseconds: int) -> Duration:
    seconds, nanos = divmod(nanoseconds, NANOSECONDS)
    return Duration(seconds=seconds, nanos=nanos)


def _milliseconds(milliseconds: float) -> Duration:
    return _duration(round(milliseconds * 1e6))


def _detection(event: Detection, rate_hz: int) -> messages.KeywordDetection:
    return messages.KeywordDetection(
        keyword=event.keyword,
        confidence=event.confidence,
        start_offset=_duration(offset_ns(event.start_sample, rate_hz)),
        end_offset=_duration(offset_ns(event.end_sample, rate_hz)),
        detection_id=event.id,
    )


def _class_scores(meta: ModelMetadata, values: Sequence[float]) -> list[messages.ClassScore]:
    return [
        messages.ClassScore(label=label, score=score)
        for label, score in zip(meta.labels, values, strict=True)
    ]


def started(
    model: SpotterModel, active: Sequence[ActiveKeyword], request_id: str
) -> rpcs.StreamingSpotResponse:
    """Make a stream's first event: what is in force for it."""
    meta = model.metadata
    begun = rpcs.StreamStarted(
        model=meta.name,
        model_version=meta.version,
        keywords=[
            messages.ActiveKeyword(
                keyword=one.keyword, threshold=one.threshold, refractory=_milliseconds(one.refractory_ms)
            )
            for one in active
        ],
        step_length=_milliseconds(meta.step_ms),
        receptive_field=_milliseconds(meta.receptive_field_ms),
        request_id=request_id,
    )
    return rpcs.StreamingSpotResponse(started=begun)


def response(event: Event, meta: ModelMetadata, detection_count: int) -> rpcs.StreamingSpotResponse:
    """Make the message of a stream's event; `detection_count` is for the last one."""
    match event:
        case Detection():
            return rpcs.StreamingSpotResponse(detection=_detection(event, meta.sample_rate_hz))
        case Scores():
            scores = _class_scores(meta, event.values.tolist())
            frame = messages.ScoreFrame(offset=_duration(event.offset_ns), scores=scores)
            return rpcs.StreamingSpotResponse(scores=frame)
        case Progress():
            progress = rpcs.Progress(
                received_offset=_duration(event.progress.received_offset_ns),
                decided_offset=_duration(event.progress.decided_offset_ns),
                replay_offset=_duration(event.progress.replay_offset_ns),
                resume_token=event.progress.resume_token,
                draining=event.draining,
            )
            return rpcs.StreamingSpotResponse(progress=progress)
        case Finished():
            ended = rpcs.StreamEnded(
                audio_duration=_duration(event.audio_ns), detection_count=detection_count
            )
            return rpcs.StreamingSpotResponse(ended=ended)
        case _:
            raise TypeError(f"a stream has no {type(event).__name__}")


def spot_response(model: SpotterModel, detections: Sequence[Detection], audio_ns: int) -> rpcs.SpotResponse:
    """Make the answer to Spot."""
    meta = model.metadata
    return rpcs.SpotResponse(
        detections=[_detection(one, meta.sample_rate_hz) for one in detections],
        audio_duration=_duration(audio_ns),
        model=meta.name,
        model_version=meta.version,
    )


def classify_response(model: SpotterModel, clip: ClipScores, elapsed_ns: int) -> rpcs.ClassifyResponse:
    """Make the answer to Classify."""
    meta = model.metadata
    ranked = sorted(zip(meta.labels, clip.values.tolist(), strict=True), key=lambda one: -one[1])
    return rpcs.ClassifyResponse(
        scores=[messages.ClassScore(label=label, score=score) for label, score in ranked],
        audio_duration=_duration(clip.audio_ns),
        processing_duration=_duration(elapsed_ns),
        model=meta.name,
        model_version=meta.version,
    )


def list_models_response(models: Sequence[SpotterModel]) -> rpcs.ListModelsResponse:
    """Make the answer to ListModels; the first model is the default one."""
    return rpcs.ListModelsResponse(models=[_model(one, default=one is models[0]) for one in models])


def get_model_response(model: SpotterModel, *, default: bool) -> rpcs.GetModelResponse:
    """Make the answer to GetModel."""
    return rpcs.GetModelResponse(model=_model(model, default=default))


def _model(model: SpotterModel, *, default: bool) -> messages.Model:
    meta = model.metadata
    return messages.Model(
        name=meta.name,
        version=meta.version,
        keywords=[
            messages.ModelKeyword(
                keyword=name, threshold=info.threshold, refractory=_milliseconds(info.refractory_ms)
            )
            for name, info in meta.keywords.items()
        ],
        labels=meta.labels,
        sample_rate_hertz=meta.sample_rate_hz,
        step_length=_milliseconds(meta.step_ms),
        receptive_field=_milliseconds(meta.receptive_field_ms),
        metrics=[
            messages.ModelMetric(name=one.name, value=one.value, description=one.description)
            for one in meta.metrics
        ],
        training_sources=[
            messages.TrainingSource(name=one.name, license=one.license, attribution=one.attribution)
            for one in meta.training.sources
        ],
        training_commit=meta.training.commit,
        sha256=model.sha256,
        default=default,
    )
