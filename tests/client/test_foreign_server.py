"""A server whose responses are no messages of earmark.v1: each call of both clients ends with an error."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark_client import Client, EarmarkError, IncompatibleServerError, SyncClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class _Garbage(grpc.GenericRpcHandler):
    """Answers all calls with bytes that are no message."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"\xff\xff")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[_Garbage()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


CALLS: list[Callable[[Any], Any]] = [
    lambda client: client.list_models(),
    lambda client: client.get_model("english"),
    lambda client: client.spot(bytes(3200), sample_rate_hz=16_000),
    lambda client: client.classify(bytes(3200), sample_rate_hz=16_000),
    lambda client: client.health(),
]


@pytest.mark.parametrize("call", CALLS, ids=["list_models", "get_model", "spot", "classify", "health"])
def test_calls_end_with_an_error(address: str, call: Callable[[Any], Any]) -> None:
    async def called() -> None:
        async with Client(address) as client:
            result: Awaitable[object] = call(client)
            await result

    with pytest.raises(IncompatibleServerError, match=f"the server at {address} sent a response"):
        asyncio.run(called())
    with SyncClient(address) as client, pytest.raises(EarmarkError):
        call(client)
