"""A page's WebSocket and the stream behind it.

The page sends, as text, {"sample_rate_hz": 48000, "keywords": {"stop": 0.8}} first (thresholds
only where they differ from the calibrated ones), then, as binary, 16-bit mono samples; {"keywords": {...}}
again when a threshold is moved, {"end": true} at the end. It gets the stream's events as JSON with their kind
in `event`, or, last, an `error` with the contract's status and reason.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from earmark_client.errors import EarmarkError, InvalidRequestError, ServerBusyError, TimedOutError
from earmark_client.events import Detection, Ended, Reconnecting, Resumed, Scores, Started
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from earmark_web.live_thresholds import Spliced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.events import Event

MAX_STREAMS = 16
MAX_STREAMS_PER_ADDRESS = 4
MAX_MESSAGE_BYTES = 256 * 1024
IDLE_S = 30.0
"""A page that sends nothing for so long, or does not take what is sent to it, is left."""

_CLOSED_BY_POLICY, _CLOSED_BY_FAULT, _CLOSED_FOR_NOW = 1008, 1011, 1013


class Streams:
    """Counts who listens, in all and by address."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def one(self, address: str) -> Iterator[None]:
        """Take a place while the block runs; ServerBusyError where there is none."""
        if self._by_address.total() >= self._most or self._by_address[address] >= MAX_STREAMS_PER_ADDRESS:
            raise ServerBusyError(
                f"as many pages listen as may: {self._most} in all, {MAX_STREAMS_PER_ADDRESS} of one address",
                status="RESOURCE_EXHAUSTED",
                reason="TOO_MANY_STREAMS",
            )
        self._by_address[address] += 1
        try:
            yield
        finally:
            self._by_address[address] -= 1


async def stream(socket: WebSocket) -> None:
    """Listen to one page until its sound ends."""
    await socket.accept()
    code = 1000
    with suppress(WebSocketDisconnect):
        try:
            with socket.state.streams.one(socket.client.host if socket.client else ""):
                await _Page(socket).listen()
        except EarmarkError as error:
            code = _CLOSED_FOR_NOW if error.retryable else _CLOSED_BY_POLICY
            if error.status in {"INTERNAL", "UNKNOWN"}:
                code = _CLOSED_BY_FAULT
            await _send(socket, "error", status=error.status, reason=error.reason, message=str(error))
        if socket.application_state is WebSocketState.CONNECTED:
            await socket.close(code)


class _Page:
    """What a page sends, checked, and how it is answered."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def listen(self) -> None:
        """Tell the page all that is heard in its sound."""
        first = await self.receive()
        rate_hz = None if isinstance(first, bytes) else first.get("sample_rate_hz")
        if isinstance(first, bytes) or not isinstance(rate_hz, float):
            message = 'the first message must be text such as {"sample_rate_hz": 48000}'
            raise _refused(message, "CONFIG_EXPECTED_FIRST")
        if not 8000 <= rate_hz <= 192_000:
            raise _refused(f"{rate_hz:g} samples a second: 8000 to 192000 may be", "UNSUPPORTED_SAMPLE_RATE")
        state = self._socket.state
        spliced = Spliced(state.client, self.receive, sample_rate_hz=round(rate_hz), model=state.model)
        async with aclosing(spliced.events(first.get("keywords", {}))) as events:
            async for event in events:
                await self._tell(event)

    async def receive(self) -> bytes | dict[str, Any]:
        """Wait for samples, or for settings; kinds of EarmarkError for what is neither."""
        try:
            async with asyncio.timeout(IDLE_S):
                message = await self._socket.receive()
        except TimeoutError:
            raise TimedOutError(
                f"no sound came from the page for {IDLE_S:g} s",
                status="DEADLINE_EXCEEDED",
                reason="IDLE_STREAM",
            ) from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        content = message.get("bytes") or message.get("text") or b""
        if len(content) > MAX_MESSAGE_BYTES:
            raise _refused(f"a message may have {MAX_MESSAGE_BYTES} bytes", "MESSAGE_TOO_LARGE")
        if isinstance(content, bytes):
            if len(content) % 2:
                raise _refused("a message must hold whole samples of 16 bits", "BAD_AUDIO")
            return content
        try:
            settings = json.loads(content, parse_int=float)  # of any size
        except (ValueError, RecursionError):
            settings = None
        if not isinstance(settings, dict) or not _are_thresholds(settings.get("keywords", {})):
            raise _refused('settings must be such as {"keywords": {"stop": 0.8}}', "BAD_CONFIG")
        return settings

    async def _tell(self, event: Event) -> None:
        match event:
            case Started():
                thresholds = {one.keyword: one.threshold for one in event.keywords}
                name = f"{event.model} {event.model_version}"
                await _send(self._socket, "started", model=name, thresholds=thresholds)
            case Scores():
                scores = {one.label: round(one.score, 4) for one in event.scores}
                await _send(self._socket, "scores", offset_s=event.offset_s, scores=scores)
            case Detection():
                told = asdict(event)
                del told["id"]  # of a segment, not of the whole
                await _send(self._socket, "detection", **told)
            case Ended() | Reconnecting() | Resumed():
                await _send(self._socket, type(event).__name__.lower(), **asdict(event))


async def _send(socket: WebSocket, kind: str, **content: Any) -> None:
    try:
        async with asyncio.timeout(IDLE_S):
            await socket.send_text(json.dumps({"event": kind, **content}))
    except TimeoutError:
        # There is no telling it: SLOW_READER, as the service would say.
        raise WebSocketDisconnect(_CLOSED_BY_POLICY) from None


def _are_thresholds(value: Any) -> bool:
    # What cannot be printed cannot be sent either.
    return isinstance(value, dict) and all(
        isinstance(threshold, float) and keyword.isprintable() for keyword, threshold in value.items()
    )


def _refused(message: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(message, status="INVALID_ARGUMENT", reason=reason)
