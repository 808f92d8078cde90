"""Streams of both clients to servers that violate the API: each ends with an EarmarkError in time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from earmark_client import (
    ConnectionLostError,
    Detection,
    EarmarkError,
    Ended,
    IncompatibleServerError,
    ServerUnreachableError,
    Started,
)
from support.both_clients import DRIVERS, Driver
from support.misbehaving_server import (
    MisbehavingServer,
    abort,
    detection,
    ended,
    misbehaving_server,
    progress,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from earmark_client import Event
    from support.misbehaving_server import Response

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])

RESUME_WITHIN_S = 2.0
SLACK_S = 3.0  # a busy machine


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
        assert time.monotonic() - begin_s < 0.5 + SLACK_S
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


@both
def test_a_server_without_an_answer_is_reported_also_without_resuming(
    client: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark_client.resume.DEFAULT_RESUME_WITHIN_S", 2.0)
    with misbehaving_server(_never_answers) as server, pytest.raises(ServerUnreachableError, match="in time"):
        client.events(server.address, [bytes(3200)], sample_rate_hz=16_000, resume_within_s=0)
