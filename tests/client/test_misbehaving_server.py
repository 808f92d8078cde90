"""Streams of both clients to servers that violate the API: each ends with an EarmarkError in time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from earmark_client import (
    AudioWarning,
    Client,
    ConnectionLostError,
    Detection,
    EarmarkError,
    Ended,
    IncompatibleServerError,
    Progress,
    Reconnecting,
    Resumed,
    ServerUnreachableError,
    Started,
    SyncClient,
    TimedOutError,
)
from support.both_clients import DRIVERS, Driver
from support.earmark_command import earmark, earmark_process
from support.misbehaving_server import (
    MisbehavingServer,
    abort,
    detection,
    ended,
    misbehaving_server,
    progress,
    started,
    warning,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from earmark_client import Event
    from support.misbehaving_server import Response

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])

RESUME_WITHIN_S = 2.0
SLACK_S = 7.0  # a busy machine: the sum is below the default timeouts, which are 10 s


def _stream(client: Driver, server: MisbehavingServer, audio_s: float = 3.0) -> list[Event]:
    """Stream audio in real time; return the events up to an error, or raise the error if none came."""
    events: list[Event] = []

    def audio() -> Iterator[bytes]:
        for _ in range(round(audio_s * 10)):
            yield bytes(3200)

    def store(event: Event) -> bool:
        events.append(event)
        return False

    begin_s = time.monotonic()
    try:
        client.until(server.address, audio(), store, sample_rate_hz=16_000, resume_within_s=RESUME_WITHIN_S)
    finally:
        assert time.monotonic() - begin_s < RESUME_WITHIN_S + SLACK_S
    return events


def _never_answers(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    server.wait()
    yield from ()


def _ends_without_an_event(_: MisbehavingServer, __: Any) -> Iterator[Response]:
    yield from ()


def _ends_after_started(_: MisbehavingServer, __: Any) -> Iterator[Response]:
    yield started()


def _starts_twice(_: MisbehavingServer, __: Any) -> Iterator[Response]:
    yield started()
    yield started()
    yield ended()


def _starts_with_a_detection(_: MisbehavingServer, __: Any) -> Iterator[Response]:
    yield detection()
    yield started()
    yield ended()


def _ends_before_it_starts(_: MisbehavingServer, __: Any) -> Iterator[Response]:
    yield ended()


def _fails_at_the_same_place(_: MisbehavingServer, context: Any) -> Iterator[Response]:
    yield started()
    yield progress(0)
    abort(context)


def _detects_the_same_audio_under_new_ids(server: MisbehavingServer, context: Any) -> Iterator[Response]:
    yield started()
    yield detection(detection_id=f"yes-{server.calls}")
    abort(context)


def _asks_for_a_negative_delay(_: MisbehavingServer, context: Any) -> Iterator[Response]:
    yield started()
    yield progress(0)
    abort(context, retry_after_s=-(10**9))


def _asks_for_a_delay_of_years(_: MisbehavingServer, context: Any) -> Iterator[Response]:
    yield started()
    yield progress(0)
    abort(context, retry_after_s=10**9)


def _always_drains(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    yield started()
    yield progress(0, draining=True)
    server.wait()


def _answers_only_once(server: MisbehavingServer, context: Any) -> Iterator[Response]:
    if server.calls == 1:
        yield started()
        yield progress(0)
        abort(context)
    server.wait()


def _says_nothing_after_started(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    yield started()
    server.wait()


def _says_nothing_in_mid_stream(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    yield started()
    server.wait_for_audio(32_000)
    yield progress(1)
    server.wait()


def _never_ends(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    yield started()
    server.wait_for_audio(3 * 32_000)
    yield progress(3)
    server.wait()


def _repeats_the_same_progress(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    yield started()
    while not server.wait(0.05):
        yield progress(0)


def _repeats_the_same_detection(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    yield started()
    while not server.wait(0.05):
        yield detection()


def _reports_more_audio_than_was_sent(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    yield started()
    yield progress(10**9)
    server.wait()


def _reports_negative_offsets(server: MisbehavingServer, _: Any) -> Iterator[Response]:
    yield started()
    yield progress(-5)
    server.wait()


def _sends_a_score_that_is_no_number(_: MisbehavingServer, __: Any) -> Iterator[Response]:
    yield started()
    yield detection(confidence=float("nan"))
    yield ended()


def _sends_garbage(_: MisbehavingServer, __: Any) -> Iterator[bytes | Response]:
    yield started()
    yield b"\xff" * 100


@both
@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (_never_answers, ServerUnreachableError),
        (_ends_without_an_event, ConnectionLostError),
        (_ends_after_started, ConnectionLostError),
        (_starts_twice, IncompatibleServerError),
        (_starts_with_a_detection, IncompatibleServerError),
        (_ends_before_it_starts, IncompatibleServerError),
        (_fails_at_the_same_place, ConnectionLostError),
        (_detects_the_same_audio_under_new_ids, ConnectionLostError),
        (_asks_for_a_negative_delay, ConnectionLostError),
        (_asks_for_a_delay_of_years, ConnectionLostError),
        (_always_drains, ConnectionLostError),
        (_answers_only_once, EarmarkError),
        (_says_nothing_after_started, ConnectionLostError),
        (_says_nothing_in_mid_stream, ConnectionLostError),
        (_never_ends, ConnectionLostError),
        (_repeats_the_same_progress, ConnectionLostError),
        (_repeats_the_same_detection, ConnectionLostError),
        (_reports_more_audio_than_was_sent, IncompatibleServerError),
        (_reports_negative_offsets, IncompatibleServerError),
        (_sends_a_score_that_is_no_number, IncompatibleServerError),
        (_sends_garbage, EarmarkError),
    ],
)
def test_a_stream_ends_with_an_error_within_the_resume_limit(
    client: Driver,
    behaviour: Callable[[MisbehavingServer, Any], Iterator[Response | bytes]],
    kind: type[EarmarkError],
) -> None:
    with misbehaving_server(behaviour) as server:
        with pytest.raises(kind):
            _stream(client, server)
        # Delays grow from 0.1 s, so a few calls fill the limit.
        assert server.calls <= 20


@both
def test_events_after_the_end_are_ignored_and_the_call_is_ended(
    client: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark_client.resume.END_TIMEOUT_S", 0.5)

    def behaviour(server: MisbehavingServer, _: Any) -> Iterator[Response]:
        yield started()
        yield ended()
        yield detection()
        yield ended()
        server.wait()

    with misbehaving_server(behaviour) as server:
        begin_s = time.monotonic()
        events = client.events(server.address, [bytes(3200)], sample_rate_hz=16_000)
        assert time.monotonic() - begin_s < 4.5  # not the default, which is 5 s
    assert [type(event) for event in events] == [Started, Ended]


@both
def test_a_server_that_fails_again_and_again_but_advances_is_resumed(client: Driver) -> None:
    def behaviour(server: MisbehavingServer, context: Any) -> Iterator[Response]:
        yield started()
        if server.calls < 8:
            server.wait_for_audio(3200)
            yield progress(0.1 * server.calls)
            abort(context)
        yield detection()
        yield ended()

    with misbehaving_server(behaviour) as server:
        events = _stream(client, server)
    assert [type(event) for event in events if isinstance(event, Started | Detection | Ended)] == [
        Started,
        Detection,
        Ended,
    ]


@pytest.mark.slow
@both
def test_a_server_without_an_answer_is_reported_also_without_resuming(
    client: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark_client.resume.DEFAULT_RESUME_WITHIN_S", 2.0)
    with misbehaving_server(_never_answers) as server, pytest.raises(ServerUnreachableError, match="in time"):
        client.events(server.address, [bytes(3200)], sample_rate_hz=16_000, resume_within_s=0)


@pytest.mark.slow
@both
@pytest.mark.parametrize("audio", ["a recording", "live audio"])
@pytest.mark.parametrize("resume_within_s", [0, 2.0])
def test_a_server_that_never_reads_is_reported(
    client: Driver, monkeypatch: pytest.MonkeyPatch, audio: str, resume_within_s: float
) -> None:
    monkeypatch.setattr("earmark_client.resume.DEFAULT_RESUME_WITHIN_S", 2.0)

    def chunks() -> Iterator[bytes]:
        while True:
            yield bytes(3200)
            if audio == "live audio":
                time.sleep(0.01)

    with misbehaving_server(_says_nothing_after_started, reads=False) as server:
        begin_s = time.monotonic()
        with pytest.raises(ConnectionLostError, match="stopped answering"):
            client.events(server.address, chunks(), sample_rate_hz=16_000, resume_within_s=resume_within_s)
        assert time.monotonic() - begin_s < RESUME_WITHIN_S + SLACK_S


@both
def test_a_warning_is_returned_once_however_often_it_comes(client: Driver) -> None:
    def behaviour(server: MisbehavingServer, context: Any) -> Iterator[Response]:
        yield started()
        yield warning()
        if server.calls == 1:
            abort(context)
        yield warning()
        yield warning("DIGITAL_SILENCE")
        yield ended()

    with misbehaving_server(behaviour) as server:
        events = client.events(server.address, [bytes(3200)], sample_rate_hz=16_000, resume_within_s=5)
    assert [event.reason for event in events if isinstance(event, AudioWarning)] == [
        "CLIPPED",
        "DIGITAL_SILENCE",
    ]
    assert any(isinstance(event, Resumed) for event in events)


@pytest.mark.slow
@both
def test_another_server_is_tried_before_the_resume_limit(
    client: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark_client.resume.STALL_TIMEOUT_S", 1.0)

    def behaviour(server: MisbehavingServer, context: Any) -> Iterator[Response]:
        if server.calls == 1:
            yield from _says_nothing_after_started(server, context)
        yield started()
        server.wait_for_audio(32_000)
        yield progress(1)
        yield ended()

    with misbehaving_server(behaviour) as server:
        events = client.events(server.address, [bytes(64_000)], sample_rate_hz=16_000, resume_within_s=6.0)
    assert [type(event) for event in events] == [Started, Reconnecting, Resumed, Progress, Ended]


@pytest.mark.slow
@both
def test_a_source_or_a_caller_that_takes_its_time_is_no_silent_server(client: Driver, address: str) -> None:
    def audio() -> Iterator[bytes]:
        yield bytes(3200)
        time.sleep(RESUME_WITHIN_S + 1)
        yield bytes(3 * 32_000)

    events: list[Event] = []

    def store(event: Event) -> bool:
        if isinstance(event, Progress) and not any(isinstance(each, Progress) for each in events):
            time.sleep(RESUME_WITHIN_S + 1)
        events.append(event)
        return False

    client.until(address, audio(), store, sample_rate_hz=16_000, resume_within_s=RESUME_WITHIN_S)
    assert {type(event) for event in events} == {Started, Progress, Ended}


@pytest.mark.slow
@pytest.mark.parametrize("client", ["async", "sync", "command"])
def test_a_health_watch_that_is_never_answered_is_reported(client: str) -> None:
    async def watch(address: str) -> None:
        async with Client(address, connect_timeout_s=0.5) as async_client:
            await anext(async_client.watch_health())

    with misbehaving_server(_never_answers) as server:
        begin_s = time.monotonic()
        if client == "command":
            done = earmark_process("health", "--watch", "--server", server.address)
            assert (done.returncode, done.stdout) == (1, "")
            assert "did not answer in time" in done.stderr
        elif client == "sync":
            sync_client = SyncClient(server.address, connect_timeout_s=0.5)
            with sync_client, pytest.raises(TimedOutError, match="in time"):
                next(sync_client.watch_health())
        else:
            with pytest.raises(TimedOutError, match="in time"):
                asyncio.run(watch(server.address))
        # Without a timeout it would wait forever; of the command, the start of the process takes longest.
        assert time.monotonic() - begin_s < (30.0 if client == "command" else 4.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "behaviour", [_never_answers, _says_nothing_after_started, _never_ends, _repeats_the_same_progress]
)
def test_the_command_reports_a_silent_server(
    behaviour: Callable[[MisbehavingServer, Any], Iterator[Response | bytes]], recording: Path
) -> None:
    with misbehaving_server(behaviour) as server:
        begin_s = time.monotonic()
        done = earmark("spot", recording, "--server", server.address, "--resume-within", "2")
        assert time.monotonic() - begin_s < RESUME_WITHIN_S + SLACK_S
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "answer" in done.stderr
