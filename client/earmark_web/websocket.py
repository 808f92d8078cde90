"""The page's WebSocket: one connection is one stream.

The page sends, in this order:

    text    {"sample_rate_hz": 48000, "keywords": {"stop": 0.8}}   once; only thresholds that differ from the
                                                                   calibrated ones
    binary  16-bit mono samples, little-endian                     any number of messages
    text    {"keywords": {...}}                                    whenever the user changes a threshold
    text    {"end": true}                                          once, at the end

It receives the stream's events as JSON objects; `event` names the kind. If the stream fails, the last one is
an `error` with the gRPC status, the reason and a message.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeGuard

from earmark_client import (
    AudioWarning,
    Detection,
    EarmarkError,
    Ended,
    InvalidRequestError,
    Reconnecting,
    Resumed,
    Scores,
    ServerBusyError,
    Started,
    TimedOutError,
)
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from earmark_web.live_thresholds import AdjustableStream, ChangeThresholds, EndOfAudio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client import Event

MAX_STREAMS = 16
MAX_STREAMS_PER_ADDRESS = 4
MAX_MESSAGE_BYTES = 256 * 1024
IDLE_TIMEOUT_S = 30.0
"""The connection closes if the page sends nothing, or reads nothing, for this long."""

_CLOSE_POLICY_VIOLATION, _CLOSE_INTERNAL_ERROR, _CLOSE_TRY_AGAIN_LATER = 1008, 1011, 1013


class StreamLimit:
    """Limits concurrent streams, in total and per address."""

    def __init__(self, max_streams: int) -> None:
        self._max_streams = max_streams
        self._count_by_address: Counter[str] = Counter()

    @contextmanager
    def admit(self, address: str) -> Iterator[None]:
        """Count one stream while the block runs. Raises ServerBusyError if a limit is reached."""
        if (
            self._count_by_address.total() >= self._max_streams
            or self._count_by_address[address] >= MAX_STREAMS_PER_ADDRESS
        ):
            raise ServerBusyError(
                f"too many streams are open (limits: {self._max_streams} in total, {MAX_STREAMS_PER_ADDRESS} "
                "per address): close another page, or try again later",
                status="RESOURCE_EXHAUSTED",
                reason="TOO_MANY_STREAMS",
            )
        self._count_by_address[address] += 1
        try:
            yield
        finally:
            self._count_by_address[address] -= 1


async def stream(socket: WebSocket) -> None:
    """Handle the WebSocket `/stream`: run one stream until its audio ends."""
    await socket.accept()
    code = 1000
    with suppress(WebSocketDisconnect):
        try:
            with socket.state.stream_limit.admit(socket.client.host if socket.client else ""):
                await _PageStream(socket).run()
        except EarmarkError as error:
            code = _CLOSE_TRY_AGAIN_LATER if error.retryable else _CLOSE_POLICY_VIOLATION
            if error.status in {"INTERNAL", "UNKNOWN"}:
                code = _CLOSE_INTERNAL_ERROR
            await _send(socket, "error", status=error.status, reason=error.reason, message=str(error))
        if socket.application_state is WebSocketState.CONNECTED:
            await socket.close(code)


@dataclass(frozen=True)
class _Settings:
    """A text message of the page. `thresholds` is None at the end of the audio."""

    sample_rate_hz: float | None
    thresholds: dict[str, float] | None


class _PageStream:
    """The stream of one WebSocket: parses and checks the page's messages, and sends it the events."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def run(self) -> None:
        """Run the stream to its end. Raises kinds of EarmarkError."""
        first = await self._receive()
        if isinstance(first, bytes) or first.sample_rate_hz is None:
            message = 'the first message must be text such as {"sample_rate_hz": 48000}'
            raise _invalid(message, "CONFIG_EXPECTED_FIRST")
        rate_hz = first.sample_rate_hz
        if not 8000 <= rate_hz <= 192_000:
            raise _invalid(
                f"the sample rate is {rate_hz:g} Hz: use 8000 to 192000 Hz", "UNSUPPORTED_SAMPLE_RATE"
            )
        state = self._socket.state
        adjustable = AdjustableStream(
            state.client, self._receive_next, sample_rate_hz=round(rate_hz), model=state.model
        )
        async with aclosing(adjustable.events(first.thresholds or {})) as events:
            async for event in events:
                await self._send_event(event)

    async def _receive_next(self) -> bytes | ChangeThresholds | EndOfAudio:
        """Return the next message after the first."""
        message = await self._receive()
        if isinstance(message, bytes):
            return message
        return EndOfAudio() if message.thresholds is None else ChangeThresholds(message.thresholds)

    async def _receive(self) -> bytes | _Settings:
        """Return the page's next message. Raises kinds of EarmarkError for an invalid or a late one."""
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                message = await self._socket.receive()
        except TimeoutError:
            raise TimedOutError(
                f"the page sent nothing for {IDLE_TIMEOUT_S:g} s: start a new stream",
                status="DEADLINE_EXCEEDED",
                reason="IDLE_STREAM",
            ) from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        content = message.get("bytes") or message.get("text") or b""
        if len(content) > MAX_MESSAGE_BYTES:
            raise _invalid(
                f"the message is larger than {MAX_MESSAGE_BYTES} bytes: send shorter chunks",
                "MESSAGE_TOO_LARGE",
            )
        if isinstance(content, bytes):
            if len(content) % 2:
                raise _invalid("the message ends inside a sample: send whole 16-bit samples", "BAD_AUDIO")
            return content
        return _parse_settings(content)

    async def _send_event(self, event: Event) -> None:
        match event:
            case Started():
                thresholds = {one.keyword: one.threshold for one in event.keywords}
                model = f"{event.model} {event.model_version}"
                await _send(self._socket, "started", model=model, thresholds=thresholds)
            case Scores():
                scores = {one.label: round(one.score, 4) for one in event.scores}
                await _send(self._socket, "scores", offset_s=event.offset_s, scores=scores)
            case Detection():
                fields = asdict(event)
                del fields["id"], fields["audio"]  # an id is unique only within a segment
                await _send(self._socket, "detection", **fields)
            case AudioWarning():
                await _send(self._socket, "warning", **asdict(event))
            case Ended() | Reconnecting() | Resumed():
                await _send(self._socket, type(event).__name__.lower(), **asdict(event))


def _parse_settings(text: str) -> _Settings:
    try:
        settings = json.loads(text, parse_int=float)  # 1 is a threshold like 1.0
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict) or not _are_thresholds(settings.get("keywords", {})):
        raise _invalid('settings must be JSON such as {"keywords": {"stop": 0.8}}', "BAD_CONFIG")
    rate_hz = settings.get("sample_rate_hz")
    return _Settings(rate_hz if isinstance(rate_hz, float) else None, settings.get("keywords"))


def _are_thresholds(value: object) -> TypeGuard[dict[str, float]]:
    # gRPC cannot send some unprintable characters, such as lone surrogates.
    return isinstance(value, dict) and all(
        isinstance(threshold, float) and keyword.isprintable() for keyword, threshold in value.items()
    )


async def _send(socket: WebSocket, kind: str, **content: object) -> None:
    try:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            await socket.send_text(json.dumps({"event": kind, **content}))
    except TimeoutError:
        # The page reads nothing, so it cannot be sent an error (the gRPC service would end with SLOW_READER).
        raise WebSocketDisconnect(_CLOSE_POLICY_VIOLATION) from None


def _invalid(message: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(message, status="INVALID_ARGUMENT", reason=reason)
