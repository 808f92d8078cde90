"""When a stream that broke is tried again, and when not any more; what it costs is in tests/integration."""

from __future__ import annotations

from typing import Any

import pytest
from earmark.v1 import keyword_spotting_service_pb2 as service_pb
from earmark_client import (
    AccessError,
    ConnectionLostError,
    EarmarkError,
    IncompatibleServerError,
    InvalidRequestError,
    ServerBusyError,
    ServerDrainingError,
    ServerFaultError,
    ServerUnreachableError,
    TimedOutError,
    UnknownModelError,
)
from earmark_client.audio import AudioFormat
from earmark_client.resume import ResumableStream
from earmark_client.stream_options import StreamOptions

STARTED = service_pb.StreamingSpotResponse(started=service_pb.StreamStarted(model="m", request_id="r1"))


def _stream(**settings: Any) -> ResumableStream:
    stream = ResumableStream(StreamOptions(audio_format=AudioFormat(16_000), **settings))
    stream.begin_call()
    list(stream.consume(STARTED))
    return stream


@pytest.mark.parametrize(
    "kind",
    [InvalidRequestError, UnknownModelError, AccessError, IncompatibleServerError, TimedOutError],
)
def test_what_will_not_change_is_not_tried_again(kind: type[EarmarkError]) -> None:
    for while_reconnecting in (False, True):
        stream = _stream()
        if while_reconnecting:
            stream.next_attempt(ConnectionLostError("cut"))
            stream.begin_call()
        with pytest.raises(kind):
            stream.next_attempt(kind("no"))


@pytest.mark.parametrize(
    "kind", [ConnectionLostError, ServerUnreachableError, ServerDrainingError, ServerFaultError]
)
def test_what_is_the_connections_is_tried_again(kind: type[EarmarkError]) -> None:
    assert _stream().next_attempt(kind("it went away")).cause == "it went away"


def test_a_busy_server_is_asked_again_but_not_one_that_ends_a_stream_for_it() -> None:
    stream = _stream()
    with pytest.raises(ServerBusyError):
        stream.next_attempt(ServerBusyError("you are too slow"))
    stream.begin_call()
    assert stream.next_attempt(ServerBusyError("no room", retry_after_s=2.0)).delay_s >= 2.0


def test_pauses_are_anything_up_to_a_growing_limit() -> None:
    """Full jitter: 0.1 s, doubled each time, up to 5 s."""
    longest = [0.0] * 10
    for _ in range(200):
        stream = _stream(resume_within_s=1e6)
        for i in range(10):
            pause = stream.next_attempt(ConnectionLostError("cut"))
            assert pause.attempt == i + 1
            longest[i] = max(longest[i], pause.delay_s)
            assert 0 <= pause.delay_s <= min(5.0, 0.1 * 2**i)
    for i, one in enumerate(longest):
        assert one > 0.8 * min(5.0, 0.1 * 2**i)


def test_progress_makes_the_next_outage_a_new_one() -> None:
    stream = _stream()
    for _ in range(5):
        stream.next_attempt(ConnectionLostError("cut"))
    stream.begin_call()
    list(stream.consume(STARTED))
    assert stream.next_attempt(ConnectionLostError("cut again")).attempt == 6
    list(stream.consume(service_pb.StreamingSpotResponse(progress=service_pb.Progress())))
    assert stream.next_attempt(ConnectionLostError("cut")).attempt == 1


def test_a_server_that_wants_too_long_a_wait_is_given_up() -> None:
    with pytest.raises(ConnectionLostError, match="within 3 s: come back") as lost:
        _stream(resume_within_s=3.0).next_attempt(ServerDrainingError("come back", retry_after_s=4.0))
    assert isinstance(lost.value.__cause__, ServerDrainingError)


def test_a_server_that_only_sends_away_is_not_asked_without_pauses() -> None:
    draining = service_pb.StreamingSpotResponse(progress=service_pb.Progress(draining=True))
    delays_s = []
    stream = _stream()
    for _ in range(8):
        assert list(stream.consume(draining)) == []
        assert stream.server_draining
        delays_s.append(stream.next_attempt(None).delay_s)
        stream.begin_call()
        list(stream.consume(STARTED))
    assert delays_s[0] == 0
    assert max(delays_s) > 0.1


def test_a_resumed_call_has_the_streams_name_and_its_newest_progress() -> None:
    stream = _stream()
    assert not stream.begin_call().config.HasField("resume")
    stream.replay_buffer.append(bytes(64_000))
    stream.replay_buffer.next_message()
    progress = service_pb.Progress(resume_token=b"token")
    progress.replay_offset.FromSeconds(1)
    list(stream.consume(service_pb.StreamingSpotResponse(progress=progress)))
    config = stream.begin_call().config
    assert (config.request_id, config.resume.resume_token) == ("r1", b"token")
    assert config.resume.start_offset.seconds == 1
    assert stream.replay_buffer.next_message() == bytes(32_000)
    named = _stream(request_id="mine").begin_call().config
    assert named.request_id == "mine"


def test_a_server_that_wants_back_more_than_is_kept_is_said() -> None:
    stream = _stream(resume_within_s=1.0)
    while stream.replay_buffer.has_capacity:
        stream.replay_buffer.append(bytes(32_000))
    while stream.replay_buffer.next_message() is not None:
        pass
    progress = service_pb.Progress()
    progress.received_offset.FromSeconds(33)
    with pytest.raises(IncompatibleServerError, match="but the client keeps less"):
        list(stream.consume(service_pb.StreamingSpotResponse(progress=progress)))
