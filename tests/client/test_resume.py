"""When a broken stream is resumed, and when it ends. tests/integration resumes real streams."""

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
def test_permanent_errors_are_not_retried(kind: type[EarmarkError]) -> None:
    for while_reconnecting in (False, True):
        stream = _stream()
        if while_reconnecting:
            stream.next_attempt(ConnectionLostError("lost"))
            stream.begin_call()
        with pytest.raises(kind):
            stream.next_attempt(kind("no"))


@pytest.mark.parametrize(
    "kind", [ConnectionLostError, ServerUnreachableError, ServerDrainingError, ServerFaultError]
)
def test_errors_of_the_connection_are_retried(kind: type[EarmarkError]) -> None:
    assert _stream().next_attempt(kind("lost")).cause == "lost"


def test_a_busy_server_is_retried_unless_it_ended_the_stream_itself() -> None:
    stream = _stream()
    with pytest.raises(ServerBusyError):
        stream.next_attempt(ServerBusyError("the stream is too slow"))
    stream.begin_call()
    assert stream.next_attempt(ServerBusyError("busy", retry_after_s=2.0)).delay_s >= 2.0


def test_delays_are_random_up_to_a_growing_limit() -> None:
    """Full jitter: 0.1 s, doubled each time, up to 5 s."""
    longest = [0.0] * 10
    for _ in range(200):
        stream = _stream(resume_within_s=1e6)
        for i in range(10):
            attempt = stream.next_attempt(ConnectionLostError("lost"))
            assert attempt.attempt == i + 1
            longest[i] = max(longest[i], attempt.delay_s)
            assert 0 <= attempt.delay_s <= min(5.0, 0.1 * 2**i)
    for i, one in enumerate(longest):
        assert one > 0.8 * min(5.0, 0.1 * 2**i)


def test_after_progress_the_attempts_count_from_one_again() -> None:
    stream = _stream()
    for _ in range(5):
        stream.next_attempt(ConnectionLostError("lost"))
    stream.begin_call()
    list(stream.consume(STARTED))
    assert stream.next_attempt(ConnectionLostError("lost again")).attempt == 6
    list(stream.consume(service_pb.StreamingSpotResponse(progress=service_pb.Progress())))
    assert stream.next_attempt(ConnectionLostError("lost")).attempt == 1


def test_a_retry_delay_beyond_the_limit_ends_the_stream() -> None:
    with pytest.raises(ConnectionLostError, match="within 3 s: draining") as lost:
        _stream(resume_within_s=3.0).next_attempt(ServerDrainingError("draining", retry_after_s=4.0))
    assert isinstance(lost.value.__cause__, ServerDrainingError)


def test_servers_that_only_drain_are_retried_with_delays() -> None:
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


def test_a_resumed_call_has_the_request_id_and_the_latest_progress() -> None:
    stream = _stream()
    stream.next_attempt(ConnectionLostError("lost"))
    assert not stream.begin_call().config.HasField("resume")
    list(stream.consume(STARTED))
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


def _without_capacity() -> tuple[ResumableStream, service_pb.Progress]:
    """Return a stream that keeps as much audio as it may, and Progress of a server that has received all."""
    stream = _stream(resume_within_s=1.0)
    while stream.replay_buffer.has_capacity:
        stream.replay_buffer.append(bytes(32_000))
    while stream.replay_buffer.next_message() is not None:
        pass
    progress = service_pb.Progress()
    progress.received_offset.FromSeconds(33)
    return stream, progress


def test_a_server_that_needs_more_audio_than_is_kept_is_incompatible() -> None:
    stream, progress = _without_capacity()
    progress.decided_offset.FromSeconds(32)
    with pytest.raises(IncompatibleServerError, match="but the client keeps less"):
        list(stream.consume(service_pb.StreamingSpotResponse(progress=progress)))


def test_a_server_that_processes_no_more_of_the_audio_that_is_kept_has_stalled() -> None:
    stream, progress = _without_capacity()
    list(stream.consume(service_pb.StreamingSpotResponse(progress=progress)))
    # The server has yet to process what it has received. Only then may more be sent.
    waits = [stream.may_wait(1.0) for _ in range(60)]
    assert waits[0]
    assert not waits[-1]
