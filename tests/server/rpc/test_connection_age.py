"""A connection that reaches its age limit, as any gRPC client sees it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server.rpc.call import Call, CallKind
from earmark_server.rpc.connection_age import ConnectionAge
from earmark_server.settings import Settings, SettingsError
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import chunks, collect, config, detections, failure, kinds, pcm, run, serving

if TYPE_CHECKING:
    from pathlib import Path


def test_a_stream_is_notified_and_the_next_call_of_its_channel_uses_a_new_connection(
    tiny_model_path: Path,
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_connection_age_s=1) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            assert kinds([await call.read()]) == ["started"]
            (old,) = [each.peer for each in rig.server._admission.open_calls]
            notified = await call.read()
            assert notified.progress.draining
            assert notified.progress.resume_token

            # Although gRPC's channel does not know `draining`, its next call uses another connection.
            resume = {
                "start_offset": notified.progress.replay_offset,
                "resume_token": notified.progress.resume_token,
            }
            again = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await again.write(config(resume=resume))
            await again.read()
            peers = {each.peer for each in rig.server._admission.open_calls}
            assert len(peers) == 2
            assert old in peers

            # The old stream may continue until its grace period is over.
            for request in chunks(pcm()):
                await call.write(request)
            await call.done_writing()
            events = [await call.read()]
            while kinds(events[-1:]) != ["ended"]:
                events.append(await call.read())
            assert len(detections(events)) == 4

    run(scenario)


def test_a_stream_that_stays_ends_after_the_grace_period(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_connection_age_s=1, drain_grace_s=0.2) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            begun_s = time.monotonic()
            ended = await failure(call)
            assert (ended.code, ended.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
            assert "reached its age" in ended.message
            assert time.monotonic() - begun_s >= 0.9
            await rig.used_slots(0)
            assert (await rig.stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S)).models

    run(scenario)


def test_all_streams_of_a_connection_are_notified_together(tiny_model_path: Path) -> None:
    """However young a stream is: gRPC cuts all of them together."""

    async def scenario() -> None:
        async def notified_s(call: Any) -> float:
            assert (await call.read()).progress.draining
            return time.monotonic()

        async with serving(tiny_model_path, max_connection_age_s=1) as rig:
            streams = []
            for _ in range(2):
                call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
                await call.write(config())
                assert kinds([await call.read()]) == ["started"]
                streams.append(asyncio.ensure_future(notified_s(call)))
                if len(streams) == 1:
                    await asyncio.wait(streams, timeout=0.7)
            assert len({call.peer for call in rig.server._admission.open_calls}) == 1
            first, later = await asyncio.gather(*streams)
            assert abs(first - later) < 0.4

    run(scenario)


def test_without_a_connection_age_no_stream_is_notified(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            events = await collect(rig.stream(config(), *chunks(pcm())))
            assert not any(event.progress.draining for event in events)
            assert not rig.server._admission.connection_age._expires_at
            assert not rig.server._admission.connection_age.grpc_options

    run(scenario)


@pytest.mark.parametrize("grace_s", [0.0, 30.0])
@pytest.mark.parametrize("age_s", [1, 3600, 604_800])
def test_grpc_closes_before_streams_are_notified_and_cuts_after_their_grace_period(
    age_s: float, grace_s: float
) -> None:
    """gRPC varies the age by 10% either way."""
    age = ConnectionAge(Settings(max_connection_age_s=age_s, drain_grace_s=grace_s))
    options = dict(age.grpc_options)
    closed_ms, cut_ms = options["grpc.max_connection_age_ms"], options["grpc.max_connection_age_grace_ms"]
    assert closed_ms * 1.1 <= 0.9 * age_s * 1000 + 1
    assert closed_ms * 0.9 + cut_ms >= 1000 * (1.1 * age_s + grace_s + 4)
    assert closed_ms + cut_ms < 1 << 31


def test_the_table_of_connections_is_bounded_and_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark_server.rpc.connection_age._MAX_CONNECTIONS", 100)

    async def scenario() -> None:
        age = ConnectionAge(Settings(max_connection_age_s=1))
        for i in range(1000):
            with age.applied_to(Call("ListModels", CallKind.LOOKUP, f"ipv4:192.0.2.1:{i}")):
                assert len(age._expires_at) <= 100
        await asyncio.sleep(1.5)  # longer than any connection's age
        with age.applied_to(Call("ListModels", CallKind.LOOKUP, "ipv4:192.0.2.1:1")):
            assert list(age._expires_at) == ["ipv4:192.0.2.1:1"]

    run(scenario)


def test_a_connection_age_below_one_second_is_rejected() -> None:
    with pytest.raises(SettingsError, match="0 or at least 1 second"):
        Settings(max_connection_age_s=0.5)
