"""The WebSocket: one connection is one stream. docs/web.md describes its messages.

If the stream fails, the last message is an `error` with the gRPC status, the reason and a sentence.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

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
    UnknownModelError,
)
from earmark_client.stream_options import MAX_MODELS
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

_SAMPLE_BYTES = 2
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
            if not self._count_by_address[address]:
                del self._count_by_address[address]


async def stream(socket: WebSocket) -> None:
    """Handle the WebSocket `/stream`: run one stream until its audio ends."""
    await socket.accept()
    code = 1000
    with suppress(WebSocketDisconnect):
        try:
            with socket.state.stream_limit.admit(socket.client.host if socket.client else ""):
                await _PageStream(socket).run()
        except EarmarkError as error:
            code = _close_code(error)
            await _send(socket, "error", status=error.status, reason=error.reason, message=str(error))
        if socket.application_state is WebSocketState.CONNECTED:
            await socket.close(code)


def _close_code(error: EarmarkError) -> int:
    # This process resumes streams, not the page: the service has another model or key now.
    if error.retryable or error.reason == "BAD_RESUME_TOKEN":
        return _CLOSE_TRY_AGAIN_LATER
    if isinstance(error, InvalidRequestError | UnknownModelError):
        return _CLOSE_POLICY_VIOLATION
    # The sender of the audio cannot fix it: a bug, or a service that rejects this process.
    return _CLOSE_INTERNAL_ERROR


@dataclass(frozen=True)
class _StreamConfig:
    """The first message. `thresholds`: those that differ from the calibrated ones."""

    sample_rate_hz: int
    models: list[str]
    thresholds: dict[str, float]
    with_scores: bool


class _PageStream:
    """The stream of one WebSocket: parses and checks the page's messages, and sends it the events."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def run(self) -> None:
        """Run the stream to its end. Raises kinds of EarmarkError."""
        config = _parse_config(await self._receive())
        state = self._socket.state
        adjustable = AdjustableStream(
            state.client,
            self._receive_next,
            sample_rate_hz=config.sample_rate_hz,
            models=config.models or [state.model],
            with_scores=config.with_scores,
        )
        async with aclosing(adjustable.events(config.thresholds)) as events:
            async for event in events:
                await self._send_event(event)

    async def _receive_next(self) -> bytes | ChangeThresholds | EndOfAudio:
        """Return the next message after the first."""
        message = await self._receive()
        if isinstance(message, bytes):
            if len(message) % _SAMPLE_BYTES:
                raise _invalid("the message ends inside a sample: send whole 16-bit samples", "BAD_AUDIO")
            return message
        if message == {"end": True}:
            return EndOfAudio()
        if message.keys() != {"keywords"}:
            raise _invalid(
                'a text message after the first must be {"keywords": {...}} or {"end": true}', "BAD_CONFIG"
            )
        return ChangeThresholds(_parse_thresholds(message))

    async def _receive(self) -> bytes | dict[str, object]:
        """Return the page's next message. Raises kinds of EarmarkError for an invalid or a late one."""
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                message = await self._socket.receive()
        except TimeoutError:
            raise TimedOutError(
                f"no message came for {IDLE_TIMEOUT_S:g} s: send audio all the time, or start a new stream",
                status="DEADLINE_EXCEEDED",
                reason="IDLE_STREAM",
            ) from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        text = message.get("text")
        content = message["bytes"] if text is None else text
        if len(content) > MAX_MESSAGE_BYTES:
            raise _invalid(
                f"the message is larger than {MAX_MESSAGE_BYTES} bytes: send shorter chunks",
                "MESSAGE_TOO_LARGE",
            )
        return content if isinstance(content, bytes) else _parse_object(content)

    async def _send_event(self, event: Event) -> None:
        match event:
            case Started():
                thresholds = {one.keyword: one.threshold for one in event.keywords}
                model = f"{event.model} {event.model_version}"
                models = [f"{one.name} {one.version}" for one in event.models]
                keywords = [
                    {"model": one.model, "keyword": one.keyword, "threshold": one.threshold}
                    for one in event.keywords
                ]
                await _send(
                    self._socket,
                    "started",
                    model=model,
                    models=models,
                    thresholds=thresholds,
                    keywords=keywords,
                )
            case Scores():
                scores = {one.label: round(one.score, 4) for one in event.scores}
                await _send(self._socket, "scores", offset_s=event.offset_s, scores=scores, model=event.model)
            case Detection():
                fields = asdict(event)
                del fields["id"], fields["audio"]  # an id is unique only within a segment
                await _send(self._socket, "detection", **fields)
            case AudioWarning():
                await _send(self._socket, "warning", **asdict(event))
            case Ended() | Reconnecting() | Resumed():
                await _send(self._socket, type(event).__name__.lower(), **asdict(event))


def _parse_object(text: str) -> dict[str, object]:
    try:
        content = json.loads(text, parse_int=float)  # 1 is a threshold like 1.0
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _invalid('text messages must be JSON objects such as {"sample_rate_hz": 16000}', "BAD_CONFIG")
    return content


def _parse_config(message: bytes | dict[str, object]) -> _StreamConfig:
    rate_hz = None if isinstance(message, bytes) else message.get("sample_rate_hz")
    if isinstance(message, bytes) or not isinstance(rate_hz, float):
        raise _invalid(
            'the first message must be text such as {"sample_rate_hz": 16000}', "CONFIG_EXPECTED_FIRST"
        )
    if not 8000 <= rate_hz <= 192_000:
        raise _invalid(f"the sample rate is {rate_hz:g} Hz: use 8000 to 192000 Hz", "UNSUPPORTED_SAMPLE_RATE")
    settings = ("sample_rate_hz", "model", "models", "keywords", "scores")
    unknown = message.keys() - {*settings}
    if unknown:
        raise _invalid(f"{min(unknown)!a} is not a setting: use {', '.join(settings)}", "BAD_CONFIG")
    models, with_scores = message.get("models", []), message.get("scores", True)
    if "model" in message:
        if models:
            raise _invalid("set either `model` or `models`, not both", "BAD_CONFIG")
        models = [message["model"]]
    if not isinstance(models, list) or not all(isinstance(one, str) and one.isprintable() for one in models):
        raise _invalid("`model` must be a name that GET /info lists, and `models` such names", "BAD_CONFIG")
    if len(models) > MAX_MODELS:
        raise _invalid(f"a stream may have at most {MAX_MODELS} models, but has {len(models)}", "BAD_CONFIG")
    if not isinstance(with_scores, bool):
        raise _invalid("`scores` must be true or false", "BAD_CONFIG")
    return _StreamConfig(round(rate_hz), models, _parse_thresholds(message), with_scores)


def _parse_thresholds(message: dict[str, object]) -> dict[str, float]:
    thresholds = message.get("keywords", {})
    # gRPC cannot send some unprintable characters, such as lone surrogates.
    if isinstance(thresholds, dict) and all(
        isinstance(threshold, float) and keyword.isprintable() for keyword, threshold in thresholds.items()
    ):
        return thresholds
    raise _invalid('`keywords` must be thresholds by keyword, such as {"stop": 0.8}', "BAD_CONFIG")


async def _send(socket: WebSocket, kind: str, **content: object) -> None:
    try:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            await socket.send_text(json.dumps({"event": kind, **content}))
    except TimeoutError:
        # The page reads nothing, so it cannot be sent an error (the gRPC service would end with SLOW_READER).
        raise WebSocketDisconnect(_CLOSE_POLICY_VIOLATION) from None


def _invalid(message: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(message, status="INVALID_ARGUMENT", reason=reason)
