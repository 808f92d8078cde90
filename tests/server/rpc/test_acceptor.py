"""Calls that strangers could end or occupy the server with."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server import process
from earmark_server.inference import watchdog
from earmark_server.memory.connections import Connections
from grpc._cython import cygrpc
from support.deadlines import DEADLINE_S
from support.ports import free_port
from support.server_rig import beside, collect, config, kinds, run, serving

from benchmarks.loadgen import http2_frames as frames

if TYPE_CHECKING:
    from pathlib import Path

PATHS = [
    b"",
    b"/",
    b"*",
    b"/a/b",
    b"/a/\xff",
    b"\xc3\xbc",
    b"/earmark.v1.KeywordSpottingService/",
    b"/earmark.v1.KeywordSpottingService/\xffListModels",
    b"/earmark.v1.KeywordSpottingService/ListModels\xff",
    b"/grpc.health.v1.Health/\xed\xa0\x80",
    b"x" * 4000,
]


def answer(port: int, path: bytes) -> bytes:
    """Return what the server sends for a call without requests, up to the end of its status."""
    headers = frames.request_headers("localhost", path)
    end = frames.END_HEADERS | frames.END_STREAM
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
        connection.sendall(frames.connection_preface() + frames.frame(frames.HEADERS, end, 1, headers))
        received = b""
        while b"Method not found!" not in received:
            more = connection.recv(65536)
            assert more, received
            received += more
    return received


def test_a_path_of_any_bytes_is_answered_and_disturbs_nobody(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        health_port = free_port()
        async with serving(tiny_model_path, health_port=health_port) as rig, beside(rig):
            for port in (rig.server.port, health_port):
                for path in PATHS:
                    assert b"grpc-status\x0212" in await asyncio.to_thread(answer, port, path)
            assert rig.server.is_accepting
            assert kinds(await collect(rig.stream(config()))) == ["started", "ended"]

    run(scenario)


def test_calls_of_closed_connections_are_dropped(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            closed = rig.server._admission.peers.closed
            assert kinds(await collect(rig.stream(config()))) == ["started", "ended"]
            (connection,) = Connections({rig.server.port}).opened()
            closed.add(connection.peer)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await rig.stub.ListModels(rpcs.ListModelsRequest())
            assert raised.value.code() == grpc.StatusCode.CANCELLED
            # Those of other connections are not.
            async with beside(rig):
                pass
            closed.clear()
            assert kinds(await collect(rig.stream(config()))) == ["started", "ended"]

    run(scenario)


def test_the_process_ends_if_grpc_stops_accepting_calls(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What started it starts it again, and streams resume."""
    reasons: list[str] = []
    monkeypatch.setattr(watchdog, "exit_process", reasons.append)

    def run_out_of_memory(*_: object) -> None:
        raise MemoryError

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            watching = asyncio.create_task(process._exit_when_not_accepting(rig.server))
            assert rig.server.is_accepting
            monkeypatch.setattr(cygrpc, "_handle_rpc", run_out_of_memory)
            call = rig.channel.unary_unary("/no.such/Method")(b"")
            await watching
            call.cancel()
            assert reasons == ["gRPC has stopped accepting calls"]

    run(scenario)
