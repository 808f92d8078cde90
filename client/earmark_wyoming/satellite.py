"""One connection of a satellite, or of Home Assistant: Wyoming events in, Wyoming events out."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from earmark_client.stream_options import MAX_MODELS
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import Describe
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection, NotDetected

from earmark_wyoming.wake_stream import WakeStream
from earmark_wyoming.wake_words import find, info

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_client.client import Client
    from earmark_client.errors import EarmarkError
    from earmark_client.events import Detection as ClientDetection

    from earmark_wyoming.wake_words import WakeWord

MAX_LINE_BYTES = 64 * 1024
_MAX_DATA_BYTES = 64 * 1024
_MAX_PAYLOAD_BYTES = 1024 * 1024
_MAX_NAMES = 256
# The time in which an event has to arrive after its first line.
_EVENT_TIMEOUT_S = 10.0
# The time that the last answers have to arrive.
_CLOSE_TIMEOUT_S = 2.0
# A satellite may begin this many streams at once, and then one in this time. Each costs the service, and gRPC
# to clean up, far more than the satellite.
_MAX_BEGUN_AT_ONCE = 5
_BEGIN_INTERVAL_S = 1.0
# How long after a rejection to ask the server again. It may have another model by then, and other wake words.
_REJECTED_RETRY_S = 10.0
_SAMPLE_WIDTHS = (1, 2, 3, 4)
# What parsing an event raises, here and in the package wyoming, if its content is invalid.
_BAD_EVENT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class Satellite:
    """Serves one connection. `words`: the wake words now; `report`: prints a line about this satellite."""

    def __init__(
        self,
        client: Client,
        words: Callable[[], Sequence[WakeWord]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        report: Callable[[str], None],
    ) -> None:
        self._client = client
        self._words = words
        self._reader, self._writer = reader, writer
        self._report = report
        self._names: list[str] | None = None
        self._streams: list[WakeStream] = []
        self._format: tuple[int, int, int] | None = None  # rate, width, channels
        self._next_ms = 0.0  # the timestamp of the next chunk that has none
        self._split = b""  # the first bytes of a sample that is split between two chunks
        self._detections = 0
        self._writing = asyncio.Lock()
        self._may_begin_s = 0.0  # on the loop's clock
        self._retry_s = math.inf  # on the loop's clock
        self._chosen: list[WakeWord] = []
        self._unknown: set[str] = set()  # the names for which the satellite has got an error
        self._is_rejected = False  # whether the server has rejected one of the streams
        self.last_event_s = asyncio.get_running_loop().time()
        """The time of the last event, or of the connection, on the loop's clock."""

    @property
    def has_streams(self) -> bool:
        """Whether the satellite has begun to send audio."""
        return bool(self._streams)

    async def run(self) -> None:
        """Serve until the connection ends, or sends something that is no Wyoming event."""
        try:
            while (event := await self._read()) is not None:
                self.last_event_s = asyncio.get_running_loop().time()
                await self._handle(event)
                await asyncio.sleep(0)  # so that one satellite with many events does not delay the others
        except (OSError, asyncio.IncompleteReadError):
            pass  # the connection is lost, as that of a satellite without power, or too slow
        except _BAD_EVENT as error:
            self._report(f"disconnected, because it sent no valid event: {error!r:.200}")
            with suppress(OSError):
                await self._write(Error("this is no valid Wyoming event", code="bad-event").event())
        finally:
            await self._cancel_streams()
            self._writer.close()
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await self._writer.wait_closed()
            except OSError:
                self._writer.transport.abort()

    async def _read(self) -> Event | None:
        """Read an event of a bounded size, None at the end. Raises ValueError for anything else.

        Raises TimeoutError if the rest of an event does not follow.
        """
        line = await self._reader.readline()  # ValueError beyond the reader's limit
        if not line:
            return None
        head = json.loads(line)
        data = dict(head.get("data") or {})
        data_bytes = _length(head.get("data_length"), _MAX_DATA_BYTES)
        payload_bytes = _length(head.get("payload_length"), _MAX_PAYLOAD_BYTES)
        async with asyncio.timeout(_EVENT_TIMEOUT_S):
            if data_bytes:
                data |= json.loads(await self._reader.readexactly(data_bytes))
            payload = await self._reader.readexactly(payload_bytes) if payload_bytes else None
        return Event(str(head["type"]), data, payload)

    async def _handle(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self._write(info(self._words()).event())
        elif Ping.is_type(event.type):
            await self._write(Pong.from_event(event).event())
        elif Detect.is_type(event.type):
            names = Detect.from_event(event).names
            names = None if not names else [str(name) for name in names]
            if names is not None and len(names) > _MAX_NAMES:
                raise ValueError(f"{len(names)} wake words, more than {_MAX_NAMES}")
            if names != self._names:
                await self._cancel_streams()
                self._format = None  # the next chunk begins streams for the new names
                self._names = names
        elif AudioStart.is_type(event.type):
            start = AudioStart.from_event(event)
            await self._cancel_streams()
            await self._begin(start.rate, start.width, start.channels, start.timestamp)
        elif AudioChunk.is_type(event.type):
            await self._consume(AudioChunk.from_event(event))
        elif AudioStop.is_type(event.type):
            streams, self._streams = self._streams, []
            self._format = None
            await asyncio.gather(*(stream.end() for stream in streams))
            if not self._detections:
                await self._write(NotDetected().event())

    async def _begin(self, rate_hz: int, width: int, channels: int, timestamp_ms: float | None) -> None:
        if width not in _SAMPLE_WIDTHS or min(rate_hz, channels) < 1:
            raise ValueError(f"audio of {rate_hz} Hz, {channels} channels and {width} bytes per sample")
        await self._wait_until_it_may_begin()
        self._format = (rate_hz, width, channels)
        self._next_ms = _finite(timestamp_ms or 0.0)
        self._split = b""
        self._detections = 0
        await self._begin_streams(rate_hz, channels)

    async def _begin_streams(self, rate_hz: int, channels: int) -> None:
        """Begin a stream of all models that have some of the wake words; several if the models are many."""
        self._chosen, self._is_rejected = self._found_words(), False
        await self._report_unknown()
        models: dict[str, list[WakeWord]] = {}
        for word in self._chosen:
            models.setdefault(word.model, []).append(word)
        of_models = list(models.values())
        self._streams = [
            WakeStream(
                self._client,
                [word for words in of_models[start : start + MAX_MODELS] for word in words],
                sample_rate_hz=rate_hz,
                channels=channels,
                on_detection=self._detected,
                on_error=self._failed,
            )
            for start in range(0, len(of_models), MAX_MODELS)
        ]

    async def _wait_until_it_may_begin(self) -> None:
        now_s = asyncio.get_running_loop().time()
        earliest_s = now_s - (_MAX_BEGUN_AT_ONCE - 1) * _BEGIN_INTERVAL_S
        self._may_begin_s = max(self._may_begin_s, earliest_s)
        early_s = self._may_begin_s - now_s
        self._may_begin_s += _BEGIN_INTERVAL_S
        if early_s > 0:
            await asyncio.sleep(early_s)

    async def _retry(self, chunk: AudioChunk) -> None:
        """Begin again if the server has rejected a stream, or if it has other wake words now."""
        if self._is_rejected or self._found_words() != self._chosen:
            await self._cancel_streams()
            await self._begin_streams(chunk.rate, chunk.channels)
        else:
            self._retry_s = asyncio.get_running_loop().time() + _REJECTED_RETRY_S

    def _found_words(self) -> list[WakeWord]:
        """Return the wake words that the satellite asked for, and that a model has."""
        words = self._words()
        if self._names is None:
            return [word for word in words if word.is_default]
        found = (find(words, name) for name in self._names)
        return [word for word in found if word is not None]

    async def _report_unknown(self) -> None:
        """Send an error for each wake word that no model has, and look for it later; once for each name."""
        words = self._words()
        unknown = {name for name in self._names or () if find(words, name) is None}
        self._retry_s = asyncio.get_running_loop().time() + _REJECTED_RETRY_S if unknown else math.inf
        new, self._unknown = unknown - self._unknown, unknown
        known = ", ".join(one.name for one in words)
        for name in sorted(new):
            self._report(f"asked for the wake word {name!r:.80}, which no model has")
            text = f"there is no wake word {name!r:.80}: the wake words are {known}"
            await self._write(Error(text, code="unknown-wake-word").event())

    async def _consume(self, chunk: AudioChunk) -> None:
        if self._format != (chunk.rate, chunk.width, chunk.channels):
            await self._cancel_streams()
            await self._begin(chunk.rate, chunk.width, chunk.channels, chunk.timestamp)
        elif asyncio.get_running_loop().time() >= self._retry_s:
            await self._retry(chunk)
        begin_ms = self._next_ms if chunk.timestamp is None else _finite(chunk.timestamp)
        data = self._split + chunk.audio
        whole = len(data) // chunk.width * chunk.width
        self._split = data[whole:]
        self._next_ms = begin_ms + whole / chunk.width / chunk.channels / chunk.rate * 1000
        samples = _to_16_bits(data[:whole], chunk.width)
        for stream in self._streams:
            await stream.put(samples, begin_ms)

    async def _detected(self, word: WakeWord, detection: ClientDetection, timestamp_ms: int) -> None:
        self._detections += 1
        self._report(f"{word.name}  {detection.confidence:.2f}")
        with suppress(OSError):  # the reader of the connection notices it
            await self._write(Detection(name=word.name, timestamp=timestamp_ms).event())

    async def _failed(self, error: EarmarkError, is_rejection: bool) -> None:
        self._report(str(error))
        if is_rejection:
            self._is_rejected = True
            self._retry_s = asyncio.get_running_loop().time() + _REJECTED_RETRY_S
            with suppress(OSError):
                await self._write(Error(str(error), code=error.reason or None).event())

    async def _cancel_streams(self) -> None:
        streams, self._streams = self._streams, []
        await asyncio.gather(*(stream.cancel() for stream in streams))

    async def _write(self, event: Event) -> None:
        async with self._writing:
            await async_write_event(event, self._writer)


def _length(value: object, limit: int) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 <= value <= limit:
        raise ValueError(f"a length of {value!r} bytes is not 0 to {limit}")
    return value


def _finite(timestamp_ms: float) -> float:
    """Return a timestamp; ValueError if it is no finite number."""
    if not math.isfinite(timestamp_ms):
        raise ValueError(f"a timestamp of {timestamp_ms}")
    return timestamp_ms


def _to_16_bits(data: bytes, width: int) -> bytes:
    """Convert signed little-endian samples of `width` bytes to 16 bits."""
    if width == 2:
        return data
    wide = np.frombuffer(data, np.uint8).reshape(-1, width)
    if width == 1:
        wide = np.pad(wide, ((0, 0), (1, 0)))
    return wide[:, -2:].tobytes()
