"""Streams of both clients, to a real server with a tiny model."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_client import (
    Client,
    ConnectionLostError,
    Detection,
    EarmarkError,
    Encoding,
    Ended,
    InvalidRequestError,
    KeywordSetting,
    Progress,
    Scores,
    Silence,
    Started,
    SyncClient,
    UnknownModelError,
    stream_channels,
)
from earmark_server import serve_in_thread
from support import tiny_model
from support.both_clients import DRIVERS, Driver
from support.deadlines import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from earmark_client import Event

RATE_HZ = 16_000
WORDS = [(0.5, "low"), (1.5, "mid"), (2.5, "high"), (4.2, "low")]
RECORDING = tiny_model.recording(WORDS, 5.0)

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])


def _chunks(samples: np.ndarray = RECORDING, length: int = 1600) -> list[np.ndarray]:
    return [samples[start : start + length] for start in range(0, len(samples), length)]


def _detections(events: list[Event]) -> list[Detection]:
    return [event for event in events if isinstance(event, Detection)]


@both
def test_detections_have_offsets_in_seconds(client: Driver, address: str) -> None:
    events = client.events(address, _chunks(), sample_rate_hz=RATE_HZ)
    started, ended = events[0], events[-1]
    assert isinstance(started, Started)
    assert (started.model, started.model_version) == ("tiny", "1.0.0")
    assert [active.keyword for active in started.keywords] == ["low", "mid", "high"]
    assert started.keywords[0].threshold == 0.6
    assert started.keywords[0].refractory_s == 0.5
    assert started.step_s == 0.02
    assert ended == Ended(audio_s=5.0, detections=4)
    detections = _detections(events)
    assert [detection.keyword for detection in detections] == [word for _, word in WORDS]
    for detection, (start_s, _) in zip(detections, WORDS, strict=True):
        assert (detection.start_s + detection.end_s) / 2 == pytest.approx(start_s + 0.03, abs=0.06)
        assert 0.6 < detection.confidence <= 1
    assert len({detection.id for detection in detections}) == 4


@both
def test_the_type_and_length_of_chunks_change_nothing(client: Driver, address: str) -> None:
    expected = _detections(client.events(address, _chunks(), sample_rate_hz=RATE_HZ))
    pcm = (RECORDING * 32768).round().astype("<i2")
    forms: list[tuple[list[Any], Encoding]] = [
        ([pcm.tobytes()], Encoding.LINEAR16),
        ([bytearray(piece) for piece in _split(pcm.tobytes(), 7777)], Encoding.LINEAR16),
        (_chunks(pcm, 3000), Encoding.LINEAR16),
        (_chunks(pcm.astype(np.float32) / 32768), Encoding.FLOAT32),
    ]
    for chunks, encoding in forms:
        events = client.events(address, chunks, sample_rate_hz=RATE_HZ, encoding=encoding)
        assert [(detection.keyword, detection.id) for detection in _detections(events)] == [
            (wanted.keyword, wanted.id) for wanted in expected
        ]


def _split(data: bytes, length: int) -> Iterator[bytes]:
    for start in range(0, len(data), length):
        yield data[start : start + length]


@both
def test_two_channels_are_averaged(client: Driver, address: str) -> None:
    stereo = np.stack([RECORDING, RECORDING], axis=1)
    events = client.events(address, [stereo], sample_rate_hz=RATE_HZ, channels=2)
    assert [detection.keyword for detection in _detections(events)] == [word for _, word in WORDS]


@both
def test_a_silence_moves_the_offsets_after_it(client: Driver, address: str) -> None:
    word = tiny_model.recording([(0.2, "mid")], 1.0)
    events = client.events(address, [Silence(60.0), word], sample_rate_hz=RATE_HZ)
    (detection,) = _detections(events)
    assert detection.start_s == pytest.approx(60.2, abs=0.06)
    assert events[-1] == Ended(audio_s=61.0, detections=1)


@both
def test_a_silence_may_be_longer_than_the_audio_that_is_kept(client: Driver, address: str) -> None:
    silence = Silence(1000)  # more than resume_within_s
    events = client.events(address, [silence, *_chunks(), silence], sample_rate_hz=RATE_HZ)
    assert [one.keyword for one in _detections(events)] == [word for _, word in WORDS]
    assert isinstance(events[-1], Ended)
    assert events[-1].audio_s == 2005


@both
def test_keywords_are_selected_with_thresholds(client: Driver, address: str) -> None:
    events = client.events(
        address,
        _chunks(),
        sample_rate_hz=RATE_HZ,
        keywords=["mid", KeywordSetting("low", threshold=0.9, refractory_s=10.0)],
    )
    started = events[0]
    assert isinstance(started, Started)
    assert {active.keyword: round(active.threshold, 3) for active in started.keywords} == {
        "low": 0.9,
        "mid": 0.6,
    }
    assert [detection.keyword for detection in _detections(events)] == ["low", "mid"]


@both
def test_scores_and_progress_have_the_requested_intervals(client: Driver, address: str) -> None:
    events = client.events(
        address, _chunks(), sample_rate_hz=RATE_HZ, score_interval_s=0.5, progress_interval_s=0.5
    )
    scores = [event for event in events if isinstance(event, Scores)]
    assert [score.offset_s for score in scores] == [step / 2 for step in range(1, 11)]
    for score in scores:
        assert sum(one.score for one in score.scores) == pytest.approx(1, abs=1e-3)
        assert [one.label for one in score.scores] == list(tiny_model.LABELS)
    progress = [event for event in events if isinstance(event, Progress)]
    assert len(progress) >= 9
    assert not any(event.draining for event in progress)


@both
def test_a_broken_stream_is_resumed_from_its_progress(client: Driver, address: str) -> None:
    whole = client.events(address, _chunks(), sample_rate_hz=RATE_HZ)
    newest: list[Progress] = []
    detections: list[Detection] = []

    def third_progress(event: Event) -> bool:
        if isinstance(event, Detection):
            detections.append(event)
        if isinstance(event, Progress):
            newest.append(event)
        return len(newest) == 3

    client.until(address, _chunks(), third_progress, sample_rate_hz=RATE_HZ)
    rest = RECORDING[round(newest[-1].replay_s * RATE_HZ) :]
    resumed = client.events(address, _chunks(rest), sample_rate_hz=RATE_HZ, resume=newest[-1])
    union = {one.id: one for one in detections + _detections(resumed)}
    assert list(union.values()) == _detections(whole)
    ended = resumed[-1]
    assert isinstance(ended, Ended)
    assert ended.audio_s == 5.0


@both
def test_a_stream_without_audio_ends_without_an_error(client: Driver, address: str) -> None:
    events = client.events(address, [b"", np.zeros(0, np.float32)], sample_rate_hz=RATE_HZ)
    assert [type(event) for event in events] == [Started, Ended]
    assert events[-1] == Ended(audio_s=0.0, detections=0)


@both
@pytest.mark.parametrize(
    ("settings", "kind", "reason"),
    [
        ({"keywords": ["hi"]}, InvalidRequestError, "UNKNOWN_KEYWORD"),
        ({"keywords": "hi"}, InvalidRequestError, "UNKNOWN_KEYWORD"),
        ({"keywords": [KeywordSetting("low", threshold=1.5)]}, InvalidRequestError, "BAD_THRESHOLD"),
        ({"model": "other"}, UnknownModelError, "UNKNOWN_MODEL"),
        ({"sample_rate_hz": 4000}, InvalidRequestError, "UNSUPPORTED_SAMPLE_RATE"),
        ({"sample_rate_hz": 1 << 40}, InvalidRequestError, "UNSUPPORTED_SAMPLE_RATE"),
        ({"channels": 0}, InvalidRequestError, "BAD_AUDIO"),
        ({"channels": 9}, InvalidRequestError, "BAD_AUDIO"),
        (
            {"resume": Progress(0.0, 0.0, 0.0, b"no token", draining=False)},
            InvalidRequestError,
            "BAD_RESUME_TOKEN",
        ),
    ],
)
def test_a_rejected_request_has_the_reason_of_the_api(
    client: Driver, address: str, settings: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind) as rejected:
        client.events(address, _chunks(), **{"sample_rate_hz": RATE_HZ, **settings})
    assert getattr(rejected.value, "reason", None) == reason
    assert len(str(rejected.value)) > 20


@both
def test_half_a_sample_at_the_end_is_rejected_after_the_detections(client: Driver, address: str) -> None:
    received: list[Event] = []

    def store(event: Event) -> bool:
        received.append(event)
        return False

    pcm = (RECORDING * 32768).astype("<i2").tobytes()
    with pytest.raises(InvalidRequestError) as rejected:
        client.until(address, [pcm, b"\x00"], store, sample_rate_hz=RATE_HZ)
    assert rejected.value.reason == "BAD_AUDIO"
    assert len(_detections(received)) >= 3


@both
def test_nan_in_float_audio_is_rejected(client: Driver, address: str) -> None:
    bad = np.array([0.0, np.nan], np.float32)
    with pytest.raises(InvalidRequestError) as rejected:
        client.events(address, [bad], sample_rate_hz=RATE_HZ, encoding=Encoding.FLOAT32)
    assert rejected.value.reason == "BAD_AUDIO"


def test_the_reason_of_a_rejection_survives_failed_writes(address: str) -> None:
    """Without `_ServerStatus` it is lost in about every second stream."""

    async def run() -> None:
        async with Client(address) as client:
            for _ in range(30):
                many = itertools.repeat(bytes(3200), 100)
                with pytest.raises(InvalidRequestError) as rejected:
                    async for _ in client.stream(many, sample_rate_hz=RATE_HZ, keywords=["hi"]):
                        pass
                assert rejected.value.reason == "UNKNOWN_KEYWORD"

    asyncio.run(run())


class _MicrophoneUnpluggedError(Exception):
    pass


@both
def test_an_exception_of_the_audio_source_is_raised_unchanged(client: Driver, address: str) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield RECORDING[:RATE_HZ]
        raise _MicrophoneUnpluggedError

    with pytest.raises(_MicrophoneUnpluggedError):
        client.events(address, failing(), sample_rate_hz=RATE_HZ)

    def failing_at_once() -> Iterator[np.ndarray]:
        raise _MicrophoneUnpluggedError
        yield

    with pytest.raises(_MicrophoneUnpluggedError):
        client.events(address, failing_at_once(), sample_rate_hz=RATE_HZ)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_an_exception_that_ends_the_thread_of_the_audio_source_ends_the_stream(
    address: str, kind: type[BaseException]
) -> None:
    def ending() -> Iterator[np.ndarray]:
        yield RECORDING[:RATE_HZ]
        raise kind

    with SyncClient(address) as client:
        stream = client.stream(ending(), sample_rate_hz=RATE_HZ)
        ended = threading.Timer(DEADLINE_S, client.close)  # ends a stream that waits for ever
        ended.start()
        try:
            with pytest.raises(kind):
                list(stream)
        finally:
            ended.cancel()


class _TestSkipped(BaseException):
    """Such as the exceptions with which test frameworks end a test."""


@pytest.mark.parametrize("kind", [_TestSkipped, GeneratorExit])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_exception_that_is_no_error_ends_an_asynchronous_stream_too(
    address: str, kind: type[BaseException], channels: int
) -> None:
    async def run() -> None:
        async def ending() -> AsyncIterator[np.ndarray]:
            yield RECORDING[:RATE_HZ]
            raise kind

        async with asyncio.timeout(DEADLINE_S), Client(address) as client:
            stream: AsyncIterator[object] = client.stream(ending(), sample_rate_hz=RATE_HZ)
            if channels > 1:
                stream = stream_channels(client, ending(), sample_rate_hz=RATE_HZ, channels=channels)
            with pytest.raises(kind):
                [event async for event in stream]

    asyncio.run(run())


@pytest.mark.parametrize("channels", [1, 2])
def test_a_source_that_awaits_a_cancelled_task_ends_the_stream(address: str, channels: int) -> None:
    async def run() -> None:
        task = asyncio.create_task(asyncio.sleep(DEADLINE_S))

        async def reading() -> AsyncIterator[np.ndarray]:
            yield RECORDING[:RATE_HZ]
            task.cancel()
            await task

        async with asyncio.timeout(DEADLINE_S), Client(address) as client:
            stream: AsyncIterator[object] = client.stream(reading(), sample_rate_hz=RATE_HZ)
            if channels > 1:
                stream = stream_channels(client, reading(), sample_rate_hz=RATE_HZ, channels=channels)
            with pytest.raises(EarmarkError, match="the source of the audio was cancelled"):
                [event async for event in stream]

    asyncio.run(run())


@both
def test_the_events_of_the_audio_before_an_exception_of_the_source_come_first(
    client: Driver, address: str
) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield from _chunks()
        raise _MicrophoneUnpluggedError

    events: list[Event] = []

    def collect(event: Event) -> bool:
        events.append(event)
        return False

    with pytest.raises(_MicrophoneUnpluggedError):
        client.until(address, failing(), collect, sample_rate_hz=RATE_HZ)
    assert len(_detections(events)) == 4
    assert not any(isinstance(event, Ended) for event in events)


@both
def test_a_cancelled_stream_does_not_affect_the_next_one(client: Driver, address: str) -> None:
    endless = itertools.repeat(np.zeros(RATE_HZ // 10, np.float32))
    client.until(address, endless, lambda event: isinstance(event, Progress), sample_rate_hz=RATE_HZ)
    events = client.events(address, _chunks(), sample_rate_hz=RATE_HZ)
    assert len(_detections(events)) == 4


def test_a_detection_arrives_before_the_next_chunk_is_sent(address: str) -> None:
    """The source waits for the detection of a keyword before it yields the next chunk."""

    async def run() -> list[str]:
        detected = asyncio.Event()

        async def live() -> AsyncIterator[np.ndarray]:
            for chunk in _chunks(RECORDING[:RATE_HZ]):
                yield chunk
            await asyncio.wait_for(detected.wait(), DEADLINE_S)
            yield RECORDING[RATE_HZ:]

        words = []
        async with Client(address) as client:
            async for event in client.stream(live(), sample_rate_hz=RATE_HZ):
                if isinstance(event, Detection):
                    words.append(event.keyword)
                    detected.set()
        return words

    assert asyncio.run(run()) == [word for _, word in WORDS]


def test_closing_a_client_ends_its_streams_with_an_error(address: str) -> None:
    async def run() -> None:
        client = Client(address)
        events = client.stream(itertools.repeat(bytes(3200)), sample_rate_hz=RATE_HZ)
        assert isinstance(await anext(events), Started)
        await client.close()
        with pytest.raises(ConnectionLostError, match="the client was closed before the call had ended"):
            async for _ in events:
                pass
        with pytest.raises(EarmarkError, match="closed"):
            await client.list_models()

    asyncio.run(run())
    sync_client = SyncClient(address)
    events = sync_client.stream(itertools.repeat(bytes(3200)), sample_rate_hz=RATE_HZ)
    assert isinstance(next(events), Started)
    sync_client.close()
    with pytest.raises(ConnectionLostError, match="the client was closed before the call had ended"):
        list(events)
    with pytest.raises(EarmarkError, match="closed"):
        sync_client.list_models()


def test_closing_a_client_ends_its_other_calls_with_an_error(address: str) -> None:
    problem = "the client was closed before the call had ended"

    async def run(silent_address: str) -> None:
        client = Client(address)
        changes = client.watch_health()
        await anext(changes)
        await client.close()
        with pytest.raises(ConnectionLostError, match=problem):
            await anext(changes)
        client = Client(silent_address)
        call = asyncio.create_task(client.list_models())
        await asyncio.sleep(0)  # it waits for the connection now
        await client.close()
        with pytest.raises(ConnectionLostError, match=problem):
            await call
        client = Client(silent_address)
        call = asyncio.create_task(client.list_models())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(run(f"127.0.0.1:{silent.getsockname()[1]}"))
    sync_client = SyncClient(address)
    changes = sync_client.watch_health()
    next(changes)
    sync_client.close()
    with pytest.raises(ConnectionLostError, match=problem):
        next(changes)


@pytest.mark.parametrize("stage", ["acquire", "stub"])
@pytest.mark.parametrize(
    "call",
    [
        lambda client: list(client.stream([RECORDING], sample_rate_hz=RATE_HZ)),
        lambda client: client.list_models(),
        lambda client: client.health(),
        lambda client: list(client.watch_health()),
    ],
    ids=["stream", "list_models", "health", "watch_health"],
)
def test_closing_a_client_just_before_a_call_begins_is_an_error_too(
    address: str, call: Callable[[SyncClient], Any], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread may do. Making a stub on a closed channel crashes the process."""
    client = SyncClient(address)
    original = getattr(client._pool, stage)

    def close_after(*arguments: Any) -> Any:
        result = original(*arguments)
        client.close()
        return result

    monkeypatch.setattr(client._pool, stage, close_after)
    with pytest.raises(ConnectionLostError, match="the client was closed before the call had ended"):
        call(client)


def test_one_client_runs_many_streams_concurrently(address: str) -> None:
    async def run() -> None:
        async def one(client: Client) -> list[Event]:
            return [event async for event in client.stream(_chunks(), sample_rate_hz=RATE_HZ)]

        async with Client(address) as client:
            streams = await asyncio.gather(*(one(client) for _ in range(8)))
        assert all(_detections(events) == _detections(streams[0]) for events in streams)

    asyncio.run(run())


def test_backpressure_when_events_are_not_read(address: str) -> None:
    """The client reads its source only as fast as the events are read."""
    read_chunks = 0

    def counted() -> Iterator[bytes]:
        nonlocal read_chunks
        for _ in range(600):
            read_chunks += 1
            yield bytes(2 * RATE_HZ * 5)

    async def run() -> None:
        async with Client(address) as client:
            # Frequent scores fill the buffers of the connection while nobody reads them.
            events = client.stream(
                counted(), sample_rate_hz=RATE_HZ, score_interval_s=0.02, progress_interval_s=0.1
            )
            await anext(events)
            before = -1
            while read_chunks != before:  # until the client reads no more
                before = read_chunks
                await asyncio.sleep(0.3)
            await events.aclose()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert read_chunks < 600


def test_cancelling_a_task_ends_its_stream_and_its_source(address: str) -> None:
    closed = threading.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(3200)
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async def run() -> None:
        async with Client(address) as client:
            running = asyncio.Event()

            async def consume() -> None:
                async for _ in client.stream(endless(), sample_rate_hz=RATE_HZ):
                    running.set()

            task = asyncio.create_task(consume())
            await asyncio.wait_for(running.wait(), DEADLINE_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The client can still be used.
            assert (await client.list_models())[0].name == "tiny"

    asyncio.run(run())
    assert closed.wait(5)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_a_caller_that_is_slow_with_events_does_not_look_idle(
    is_async: bool, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("async_stream", "sync_stream"):
        monkeypatch.setattr(f"earmark_client.{module}.KEEP_ALIVE_S", 0.1)
    recordings, idle_s = 40, 0.5
    chunks = itertools.chain.from_iterable(itertools.repeat(_chunks(), recordings))
    slow_at = 3

    async def spot(address: str) -> list[Event]:
        events = []
        async with Client(address) as client:
            async for event in client.stream(chunks, sample_rate_hz=RATE_HZ):
                events.append(event)
                if len(events) == slow_at:
                    await asyncio.sleep(4 * idle_s)
        return events

    def spot_in_thread(address: str) -> list[Event]:
        events = []
        with SyncClient(address) as client:
            for event in client.stream(chunks, sample_rate_hz=RATE_HZ):
                events.append(event)
                if len(events) == slow_at:
                    time.sleep(4 * idle_s)
        return events

    with serve_in_thread(model=(str(tiny_model_path),), idle_timeout_s=idle_s) as address:
        events = asyncio.run(spot(address)) if is_async else spot_in_thread(address)
    assert len(_detections(events)) == recordings * len(WORDS)
