"""Servers that are unreachable, do not answer, or stop."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as service_pb
from earmark.v1 import keyword_spotting_service_pb2_grpc as service_grpc
from earmark_client import (
    Client,
    ConnectionLostError,
    Health,
    IncompatibleServerError,
    ServerUnreachableError,
    Started,
    SyncClient,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from support.both_clients import DRIVERS, Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(add: Callable[[Any], None] = lambda _: None, port: int = 0) -> Iterator[tuple[Any, str]]:
    server = grpc.server(ThreadPoolExecutor(8))
    add(server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _with_health(servicer: HealthServicer) -> Callable[[Any], None]:
    return lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


class _StartsOnly(service_grpc.KeywordSpottingServiceServicer):
    """Starts a stream, and then never sends anything else."""

    def StreamingSpot(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        yield service_pb.StreamingSpotResponse(started=service_pb.StreamStarted(model="here"))
        for _ in request_iterator:
            pass


def _use(client: Driver, address: str, method: str) -> None:
    if method == "stream":
        client.events(address, [bytes(3200)], sample_rate_hz=16_000)
    elif method == "watch_health":
        with SyncClient(address) as sync_client:
            next(iter(sync_client.watch_health()))
    else:
        client.call(address, method)


@both
@pytest.mark.parametrize("method", ["stream", "list_models", "health", "watch_health"])
def test_an_unreachable_server_is_reported_at_once(client: Driver, method: str) -> None:
    address = f"127.0.0.1:{_free_port()}"
    begin_s = time.monotonic()
    with pytest.raises(ServerUnreachableError) as rejected:
        _use(client, address, method)
    assert time.monotonic() - begin_s < 5
    assert address in str(rejected.value)
    assert "earmark-server" in str(rejected.value)
    assert (rejected.value.status, rejected.value.retryable) == ("UNAVAILABLE", True)


def test_a_connection_without_an_answer_times_out() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"

        async def run() -> None:
            async with Client(address, connect_timeout_s=0.5) as client:
                await client.list_models()

        begin_s = time.monotonic()
        with pytest.raises(ServerUnreachableError, match=address):
            asyncio.run(run())
        with (
            SyncClient(address, connect_timeout_s=0.5) as sync_client,
            pytest.raises(ServerUnreachableError, match=address),
        ):
            sync_client.list_models()
        assert time.monotonic() - begin_s < 9


def test_an_unknown_host_name_is_reported() -> None:
    with SyncClient("no-such-host.invalid") as client, pytest.raises(ServerUnreachableError, match="invalid"):
        client.list_models()


@both
def test_a_grpc_server_of_another_service_is_incompatible(client: Driver) -> None:
    with _server() as (_, address), pytest.raises(IncompatibleServerError, match=address):
        client.call(address, "list_models")


@both
def test_a_lost_server_ends_a_stream_that_may_not_resume(client: Driver) -> None:
    def add(server: Any) -> None:
        service_grpc.add_KeywordSpottingServiceServicer_to_server(_StartsOnly(), server)

    def endless() -> Iterator[bytes]:
        while not gone:
            time.sleep(0.01)
            yield bytes(320)

    gone: list[bool] = []
    with _server(add) as (server, address):

        def stop_server(event: object) -> bool:
            assert isinstance(event, Started)
            server.stop(None)
            return False

        with pytest.raises(ConnectionLostError) as lost:
            client.until(address, endless(), stop_server, sample_rate_hz=16_000, resume_within_s=0)
        gone.append(True)
    assert address in str(lost.value)
    assert lost.value.retryable


def test_a_client_reconnects_to_a_restarted_server() -> None:
    add = _with_health(HealthServicer())
    port = _free_port()
    with SyncClient(f"127.0.0.1:{port}") as sync_client:
        with _server(add, port):
            assert sync_client.health() is Health.SERVING
        with pytest.raises(ServerUnreachableError):
            sync_client.health()
        with _server(add, port):
            deadline_s = time.monotonic() + 10
            while True:
                try:
                    assert sync_client.health() is Health.SERVING
                    break
                except ServerUnreachableError:
                    assert time.monotonic() < deadline_s


@both
def test_health_of_the_server_or_of_one_service(client: Driver) -> None:
    servicer = HealthServicer()
    servicer.set("earmark.v1.KeywordSpottingService", NOT_SERVING)
    with _server(_with_health(servicer)) as (
        _,
        address,
    ):
        assert client.call(address, "health") is Health.SERVING
        assert client.call(address, "health", "earmark.v1.KeywordSpottingService") is Health.NOT_SERVING


def test_health_is_watched_until_the_server_stops() -> None:
    servicer = HealthServicer()
    seen = []
    with _server(_with_health(servicer)) as (
        server,
        address,
    ):

        async def watch() -> None:
            async with Client(address) as client:
                async for health in client.watch_health():
                    seen.append(health)
                    if health is Health.SERVING:
                        servicer.set("", NOT_SERVING)
                    else:
                        server.stop(None)

        with pytest.raises(ConnectionLostError):
            asyncio.run(asyncio.wait_for(watch(), 20))
    assert seen == [Health.SERVING, Health.NOT_SERVING]
