"""HTTP connections whose client does not read."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from earmark_web import timed_http
from support.deadlines import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = bytes(64 << 20)  # more than sockets buffer


async def respond(scope: Any, _: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": BODY})


@pytest.fixture
def server() -> Iterator[uvicorn.Server]:
    config = uvicorn.Config(
        respond, port=0, http=timed_http.TimedHttp, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, "the start of the server")
    yield server
    server.should_exit = True
    thread.join(DEADLINE_S)


def request(server: uvicorn.Server) -> socket.socket:
    address = server.servers[0].sockets[0].getsockname()
    client = socket.create_connection(address, DEADLINE_S)
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


def test_a_client_that_does_not_read_is_disconnected(
    server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_http, "_READ_TIMEOUT_S", 0.3)
    with request(server):
        wait_until(lambda: len(server.server_state.connections) == 1, "the connection")
        wait_until(lambda: not server.server_state.connections, "the end of the connection")


def test_a_client_that_reads_slowly_gets_the_whole_response(
    server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with request(server) as client:
        wait_until(lambda: len(server.server_state.connections) == 1, "the connection")
        monkeypatch.setattr(timed_http, "_READ_TIMEOUT_S", 0.3)
        received = 0
        while received < len(BODY):
            part = client.recv(1 << 20)
            assert part, received
            received += len(part)
            time.sleep(0.01)
