"""Requests of earmark.v1 as plain values: the only module that knows the generated classes of requests.

Deserializing decodes a message and bounds its size; it does not validate the fields. The classes named
`...Field` are parts of a request as the client sent them, and their methods validate them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_spotter import AudioFormat, Container, Encoding, EncodingError
from earmark_spotter.sample_time import NANOSECONDS
from google.protobuf.message import DecodeError, Message

from earmark_server.rpc.lookup_deserializer import lookup_deserializer
from earmark_server.status import CallError, attribute_errors_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.duration_pb2 import Duration

    from earmark_server.settings import Settings

SERVICE = rpcs.DESCRIPTOR.services_by_name["KeywordSpottingService"]
"""The descriptor of the service."""

MAX_DURATION_NS = 315_576_000_000 * NANOSECONDS
"""The longest google.protobuf.Duration."""

MAX_MODELS = 8
"""Models of one stream or recording."""

_MAX_DURATION_S = MAX_DURATION_NS // NANOSECONDS
_RAW_ENCODINGS = {
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
# The size of a message without its audio: many times the size of all keywords of a model and a resume token.
_MAX_FIELDS_BYTES = 64 * 1024
# Fields of a message besides its keywords. A newer client may have some that this server does not know.
_MAX_OTHER_FIELDS = 64
# The size of a message of a stream besides its audio, and of a message without audio.
_MAX_EXTRA_BYTES = 1024
_LENGTH_DELIMITED = 2  # protobuf's wire type of bytes, strings and messages


@dataclass(frozen=True, slots=True)
class DurationField:
    """A duration in a request."""

    seconds: int
    nanos: int

    def nanoseconds(self, field: str, low_ns: int, high_ns: int, reason: str) -> int:
        """Return the duration in nanoseconds; CallError, which names `field`, if it is out of range."""
        seconds, nanos = self.seconds, self.nanos
        is_valid = abs(seconds) <= _MAX_DURATION_S and abs(nanos) < NANOSECONDS and seconds * nanos >= 0
        total = seconds * NANOSECONDS + nanos
        if is_valid and low_ns <= total <= high_ns:
            return total
        low, high = f"{low_ns / NANOSECONDS:g}", f"{high_ns / NANOSECONDS:g} s"
        allowed = f"more than 0 and at most {high}" if low_ns == 1 else f"{low} to {high}"
        raise CallError(
            reason,
            f"`{field}` must be {allowed}, but is {seconds} s and {nanos} ns.",
            field=field,
        )


@dataclass(frozen=True, slots=True)
class FormatField:
    """The format of the audio in a request; 0 stands for an omitted value."""

    encoding: messages.Encoding
    sample_rate_hz: int
    channel_count: int
    channel: int = 0

    @property
    def is_raw(self) -> bool:
        """Whether the audio is raw samples without a container."""
        return self.encoding in _RAW_ENCODINGS

    def raw_format(self, field: str) -> AudioFormat:
        """Return the format of raw samples; CallError, which names a part of `field`, for any other."""
        encoding = _RAW_ENCODINGS.get(self.encoding)
        if encoding is None:
            raw = ", ".join(_encoding_name(number) for number in _RAW_ENCODINGS)
            with attribute_errors_to(f"{field}.encoding"):
                raise EncodingError(
                    f"The encoding of a stream must be one of {raw}, but is {_encoding_name(self.encoding)}."
                )
        with attribute_errors_to(f"{field}.sample_rate_hertz"):
            AudioFormat(encoding, self.sample_rate_hz)
        with attribute_errors_to(f"{field}.channel_count"):
            AudioFormat(encoding, self.sample_rate_hz, self.channel_count or 1)
        with attribute_errors_to(f"{field}.channel"):
            return AudioFormat(encoding, self.sample_rate_hz, self.channel_count or 1, self.channel or None)

    def container(self, field: str) -> Container | None:
        """Return the container of a recording, None if it is to be detected; CallError if it is unknown."""
        if self.encoding not in _CONTAINERS:
            known = ", ".join(_encoding_name(number) for number in (*_RAW_ENCODINGS, *_CONTAINERS))
            with attribute_errors_to(f"{field}.encoding"):
                raise EncodingError(f"The encoding must be one of {known}, but is {self.encoding}.")
        return _CONTAINERS[self.encoding]


@dataclass(frozen=True, slots=True)
class KeywordField:
    """A keyword in a request; None stands for the model's own setting, and an empty model for any."""

    keyword: str
    threshold: float | None
    refractory: DurationField | None
    model: str = ""


@dataclass(frozen=True, slots=True)
class ResumeField:
    """The point in a request at which a broken stream resumes."""

    start_offset: DurationField
    resume_token: bytes


@dataclass(frozen=True, slots=True)
class OpenStream:
    """The first request of a stream: its configuration."""

    request_id: str
    model: str
    audio_format: FormatField
    keywords: tuple[KeywordField, ...]
    score_interval: DurationField | None
    progress_interval: DurationField | None
    resume: ResumeField | None
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Audio of a stream; a sample may be split between two chunks."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class Silence:
    """A pause in a stream, for which the client sent no audio."""

    duration: DurationField


@dataclass(frozen=True, slots=True)
class EmptyRequest:
    """A request of a stream with no content."""


StreamRequest: TypeAlias = OpenStream | AudioChunk | Silence | EmptyRequest


@dataclass(frozen=True, slots=True)
class SpotCall:
    """A recording in which to detect keywords."""

    request_id: str
    model: str
    audio_format: FormatField
    keywords: tuple[KeywordField, ...]
    audio: bytes
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassifyCall:
    """A clip to classify."""

    request_id: str
    model: str
    audio_format: FormatField
    audio: bytes


@dataclass(frozen=True, slots=True)
class ListModelsCall:
    """A query for all models."""


@dataclass(frozen=True, slots=True)
class GetModelCall:
    """A query for one model."""

    model: str


GeneratedRequest = TypeVar("GeneratedRequest", bound=Message)
Request = TypeVar("Request")


class Deserializers:
    """One deserializer per RPC. Each returns a request, or the CallError to raise for unusable bytes.

    It must not raise the error itself: gRPC would send the client the text of the exception.
    """

    def __init__(self, settings: Settings) -> None:
        recording_bytes = settings.max_message_bytes
        stream_bytes = min(settings.max_message_bytes, settings.max_stream_message_bytes)
        # One more than the limit shows that there are too many; converting all of them might take long.
        self._max_keywords = settings.max_keywords + 1
        self.streaming_spot = _without_excess(
            self._deserializer(rpcs.StreamingSpotRequest, self._stream_request, stream_bytes)
        )
        self.spot = self._deserializer(rpcs.SpotRequest, self._spot_call, recording_bytes)
        self.classify = self._deserializer(rpcs.ClassifyRequest, _classify_call, recording_bytes)
        self.list_models = lookup_deserializer(rpcs.ListModelsRequest, lambda _: ListModelsCall())
        self.get_model = lookup_deserializer(
            rpcs.GetModelRequest, lambda request: GetModelCall(request.model)
        )

    def _deserializer(
        self, kind: type[GeneratedRequest], convert: Callable[[GeneratedRequest], Request], limit: int
    ) -> Callable[[bytes], Request | CallError]:
        fields = kind.DESCRIPTOR.fields_by_name
        max_fields = self._max_keywords + _MAX_OTHER_FIELDS
        decode = kind.FromString
        audio_field = fields["audio"].number if "audio" in fields else 0

        def deserialize(serialized: bytes) -> Request | CallError:
            if len(serialized) > limit:
                return CallError(
                    "MESSAGE_TOO_LARGE",
                    f"A message may have at most {limit} bytes on this server, but has {len(serialized)}. "
                    "Send shorter pieces.",
                    message_bytes=len(serialized),
                )
            if len(serialized) > _MAX_FIELDS_BYTES and _has_too_many_fields(
                serialized, audio_field, max_fields
            ):
                return CallError(
                    "MESSAGE_TOO_LARGE",
                    f"A message may have at most {_MAX_FIELDS_BYTES} bytes besides its audio, but has more. "
                    "Name fewer keywords and models.",
                    message_bytes=len(serialized),
                )
            try:
                return convert(decode(serialized))
            except DecodeError:
                return CallError("BAD_CONFIG", f"A message cannot be parsed as {kind.DESCRIPTOR.full_name}.")

        return deserialize

    def _stream_request(self, request: rpcs.StreamingSpotRequest) -> StreamRequest:
        content = request.WhichOneof("request")
        if content == "audio":
            return AudioChunk(request.audio)
        if content == "silence":
            return Silence(_duration(request.silence))
        if content is None:
            return EmptyRequest()
        config = request.config
        resume = None
        if config.HasField("resume"):
            resume = ResumeField(_duration(config.resume.start_offset), config.resume.resume_token)
        return OpenStream(
            config.request_id,
            config.model,
            _format(config.audio_format),
            self._keywords(config.keywords),
            _duration(config.score_interval) if config.HasField("score_interval") else None,
            _duration(config.progress_interval) if config.HasField("progress_interval") else None,
            resume,
            _models(config.models),
        )

    def _spot_call(self, request: rpcs.SpotRequest) -> SpotCall:
        return SpotCall(
            request.request_id,
            request.model,
            _format(request.audio_format),
            self._keywords(request.keywords),
            request.audio,
            _models(request.models),
        )

    def _keywords(self, keywords: Iterable[messages.KeywordSetting]) -> tuple[KeywordField, ...]:
        return tuple(
            KeywordField(
                each.keyword,
                each.threshold if each.HasField("threshold") else None,
                _duration(each.refractory) if each.HasField("refractory") else None,
                each.model,
            )
            for each in islice(keywords, self._max_keywords)
        )


def _without_excess(
    deserialize: Callable[[bytes], StreamRequest | CallError],
) -> Callable[[bytes], StreamRequest | CallError]:
    """Return a deserializer that rejects messages which are much longer than the audio in them.

    Otherwise a stream of messages full of empty or unknown fields would occupy the event loop for nothing.
    """

    def deserialize_without_excess(serialized: bytes) -> StreamRequest | CallError:
        request = deserialize(serialized)
        if isinstance(request, OpenStream | CallError):
            return request
        excess = len(serialized) - (len(request.audio) if isinstance(request, AudioChunk) else 0)
        if excess <= _MAX_EXTRA_BYTES:
            return request
        return CallError(
            "MESSAGE_TOO_LARGE",
            f"A message may have at most {_MAX_EXTRA_BYTES} bytes besides its audio, but has {excess}.",
            message_bytes=len(serialized),
        )

    return deserialize_without_excess


def _classify_call(request: rpcs.ClassifyRequest) -> ClassifyCall:
    return ClassifyCall(request.request_id, request.model, _format(request.audio_format), request.audio)


def _models(models: Iterable[str]) -> tuple[str, ...]:
    return tuple(islice(models, MAX_MODELS + 1))


def _duration(duration: Duration) -> DurationField:
    return DurationField(duration.seconds, duration.nanos)


def _format(audio_format: messages.AudioFormat) -> FormatField:
    return FormatField(
        audio_format.encoding,
        audio_format.sample_rate_hertz,
        audio_format.channel_count,
        audio_format.channel,
    )


def _encoding_name(number: int) -> str:
    known = messages.Encoding.DESCRIPTOR.values_by_number.get(number)
    return str(number) if known is None else str(known.name)


def _has_too_many_fields(serialized: bytes, audio_field: int, max_fields: int) -> bool:
    """Return whether a message has too much besides its field number `audio_field`.

    That is more than _MAX_FIELDS_BYTES, or more than `max_fields` fields, however short they are.

    This has to be known before the message is decoded, because 2 bytes can decode to an object of 50. A
    message is read as far as it is well-formed; decoding rejects the rest.
    """
    position = others = count = 0
    try:
        while position < len(serialized) and others <= _MAX_FIELDS_BYTES:
            start = position
            count += 1
            if count > max_fields:
                return True
            key, position = _varint(serialized, position)
            if key & 7 != _LENGTH_DELIMITED:
                return True  # neither a field of ours, nor one of a message as long as this
            size, position = _varint(serialized, position)
            position += size
            others += position - start - (size if key >> 3 == audio_field else 0)
    except IndexError:
        pass  # The message is truncated.
    return others > _MAX_FIELDS_BYTES


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that protobuf has encoded at a position, and the position after it."""
    value = shift = 0
    while (byte := data[position]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if shift > 63:
            raise IndexError
    return value | byte << shift, position + 1
