"""The limits of resuming: the replay buffer, the time, and streams that are not resumed."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from earmark_client import (
    ConnectionLostError,
    Detection,
    Ended,
    IncompatibleServerError,
    InvalidRequestError,
    Progress,
    Reconnecting,
    ServerUnreachableError,
    Started,
    SyncClient,
)
from support import tiny_model
from support.cutting_proxy import CuttingProxy
from support.deadlines import wait_until
from support.observed_streams import (
    RATE_HZ,
    Stream,
    assert_same_events,
    demo,
    run,
    run_in_background,
    run_undisturbed,
)
from support.ports import free_port
from support.restartable_server import RestartableServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from earmark_client import Event

both = pytest.mark.parametrize("flavour", ["async", "sync"])


@pytest.mark.slow
@both
def test_an_outage_does_not_block_a_live_source(flavour: str, tiny_model_path: Path) -> None:
    """The server returns only after the source has produced 40 s more."""
    recording = tiny_model.recording([(0.5 + i, ("low", "mid", "high")[i % 3]) for i in range(60)], 60.0)
    chunks = [recording[i : i + 1600] for i in range(0, len(recording), 1600)]
    with RestartableServer(tiny_model_path) as server:
        expected = run_undisturbed(server.address, chunks)
        stream = Stream(chunks, speed=20.0)

        def outage() -> None:
            wait_until(lambda: len(stream.of(Progress)) > 2, "progress")
            server.kill()
            taken = stream.sent_chunks
            wait_until(lambda: stream.sent_chunks >= min(taken + 400, len(chunks)), "more audio that is sent")
            server.start()

        saboteur = run_in_background(outage)
        run(flavour, server.address, [stream])
        saboteur.result()
    assert_same_events(stream, expected)


@pytest.mark.slow
@both
def test_the_replay_buffer_is_bounded(flavour: str, tiny_model_path: Path) -> None:
    """A source at full speed blocks when the replay buffer is full, and continues afterwards."""
    with RestartableServer(tiny_model_path) as server:
        stream = Stream([bytes(2 * RATE_HZ)] * 300)

        def outage() -> None:
            wait_until(lambda: bool(stream.of(Progress)), "progress")
            server.kill()
            wait_until(lambda: bool(stream.of(Reconnecting)), "the client's notice of the outage")
            newest = stream.of(Progress)[-1]
            assert isinstance(newest, Progress)
            # 20 s of outage, a progress interval, 30 s more, and the chunk that fills the buffer.
            bound = round(newest.replay_s) + 20 + 1 + 30 + 1
            wait_until(lambda: stream.sent_chunks >= bound, "a full replay buffer")
            assert stream.sent_chunks == bound < 300
            server.start()

        saboteur = run_in_background(outage)
        run(flavour, server.address, [stream], resume_within_s=20.0)
        saboteur.result()
    assert stream.events[-1] == Ended(audio_s=300.0, detections=0)


@pytest.mark.slow
@both
def test_the_client_gives_up_in_time_with_one_error(flavour: str, tiny_model_path: Path) -> None:
    with RestartableServer(tiny_model_path) as server:
        stream = Stream([bytes(3200)] * 1000, speed=2.0)
        stream.on_event = lambda event: server.kill() if isinstance(event, Started) else None
        with pytest.raises(ConnectionLostError, match="could not be resumed within 1 s") as lost:
            run(flavour, server.address, [stream], resume_within_s=1.0)
        assert lost.value.status == "UNAVAILABLE"
        assert stream.of(Reconnecting)


@both
def test_a_stream_that_never_started_does_not_retry(flavour: str) -> None:
    stream = Stream([])
    begin_s = time.monotonic()
    with pytest.raises(ServerUnreachableError):
        run(flavour, f"127.0.0.1:{free_port()}", [stream])
    assert time.monotonic() - begin_s < 30
    assert not stream.events


@pytest.mark.slow
@both
@pytest.mark.parametrize("progress", [True, False])
def test_a_stream_does_not_resume_on_another_model(
    flavour: str, progress: bool, tiny_model_path: Path, tmp_path: Path
) -> None:
    """Another model could have other detections: that is an error, without a retry."""
    document = tiny_model.metadata()
    document["version"] = "1.0.1"
    other = tiny_model.build(tmp_path / "other.onnx", document=document)
    with RestartableServer(tiny_model_path) as server:
        stream = Stream([bytes(3200)] * 1000, speed=4.0)

        def replace(event: Event) -> None:
            if isinstance(event, Progress if progress else Started):
                server.kill()
                server.model_path = other
                server.start()

        stream.on_event = replace
        kind = InvalidRequestError if progress else IncompatibleServerError
        with pytest.raises(kind) as refused:
            run(flavour, server.address, [stream])
    assert refused.value.reason == "BAD_RESUME_TOKEN"
    if not progress:
        assert "1.0.1" in str(refused.value)


@pytest.mark.slow
@both
def test_a_full_server_is_tried_again(flavour: str, tiny_model_path: Path) -> None:
    """RESOURCE_EXHAUSTED while reconnecting: the only stream slot is occupied for a while."""
    with (
        RestartableServer(tiny_model_path, "--max-streams=1") as server,
        CuttingProxy(server.port) as proxy,
        SyncClient(server.address) as other,
    ):
        let_go = threading.Event()
        stream = Stream([bytes(3200)] * 40, speed=2.0)

        def until_let_go() -> Iterator[bytes]:
            assert let_go.wait(60)
            yield bytes(3200)

        def occupy_the_slot() -> None:
            wait_until(lambda: bool(stream.of(Progress)), "progress")
            proxy.target_port = free_port()
            proxy.cut()
            server.wait_for("call ended")
            for _ in other.stream(until_let_go(), sample_rate_hz=RATE_HZ):
                proxy.target_port = server.port

        def see(event: Event) -> None:
            if isinstance(event, Reconnecting) and "its limit" in event.cause:
                assert event.delay_s >= 1
                let_go.set()

        stream.on_event = see
        taker = run_in_background(occupy_the_slot)
        run(flavour, proxy.address, [stream])
        taker.result()
    assert let_go.is_set()
    assert stream.events[-1] == Ended(audio_s=4.0, detections=0)


def test_streams_that_are_closed_or_rejected_keep_their_connection(tiny_model_path: Path) -> None:
    """A new connection is opened only after the old one failed."""
    silence = [bytes(3200)] * 5
    with (
        RestartableServer(tiny_model_path) as server,
        CuttingProxy(server.port) as proxy,
        SyncClient(proxy.address) as client,
    ):
        for _ in range(3):
            next(client.stream(silence, sample_rate_hz=RATE_HZ))
            with pytest.raises(InvalidRequestError):
                next(client.stream(silence, sample_rate_hz=RATE_HZ, keywords=["nothing"]))
            list(client.stream(silence, sample_rate_hz=RATE_HZ))
        assert proxy.connections == 1


@pytest.mark.slow
@both
def test_a_stream_without_automatic_resume_can_be_resumed_by_the_caller(flavour: str) -> None:
    chunks = demo()
    with RestartableServer() as server, CuttingProxy(server.port) as proxy:
        expected = run_undisturbed(server.address, chunks)
        stream = Stream(chunks, speed=10.0)
        stream.on_event = lambda event: proxy.cut() if len(stream.of(Progress)) == 5 else None
        with pytest.raises(ConnectionLostError):
            run(flavour, proxy.address, [stream], resume_within_s=0)
        assert not stream.of(Reconnecting)
        newest = stream.of(Progress)[-1]
        assert isinstance(newest, Progress)
        rest = b"".join(chunks)[round(newest.replay_s * RATE_HZ) * 2 :]
        again = Stream([rest])
        run(flavour, server.address, [again], resume=newest)
    together = {one.id: one for one in [*stream.of(Detection), *again.of(Detection)]}
    assert list(together) == [one.id for one in expected.of(Detection)]
