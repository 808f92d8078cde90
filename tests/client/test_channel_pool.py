"""The channel pool, and the options of its channels."""

from __future__ import annotations

import pytest
from earmark_client import EarmarkError
from earmark_client.channel_pool import ChannelPool, channel_options


def _pool() -> ChannelPool[object]:
    def open_channel(*_: object, **__: object) -> object:
        return object()

    return ChannelPool(
        open_channel,
        open_channel,
        address="localhost",
        tls=False,
        token=None,
        connect_timeout_s=5.0,
        round_robin=False,
    )


def test_calls_share_a_channel_that_stays_open() -> None:
    pool = _pool()
    channel = pool.acquire()
    assert pool.acquire() is channel
    assert pool.release(channel) is None
    assert pool.release(channel) is None
    assert pool.acquire() is channel


def test_a_discarded_channel_is_closed_after_its_last_call() -> None:
    pool = _pool()
    channel = pool.acquire()
    pool.acquire()
    assert pool.release(channel, discard=True) is None
    new_channel = pool.acquire()
    assert new_channel is not channel
    # Another call may discard the channel again, without any effect on the new one.
    assert pool.release(channel, discard=True) is channel
    assert pool.acquire() is new_channel


def test_closing_returns_all_open_channels_and_rejects_new_calls() -> None:
    pool = _pool()
    old_channel = pool.acquire()
    pool.acquire()
    pool.release(old_channel, discard=True)
    new_channel = pool.acquire()
    assert pool.close() == [old_channel, new_channel]
    with pytest.raises(EarmarkError, match="closed"):
        pool.acquire()


@pytest.mark.parametrize("address", ["localhost:50051", "127.0.0.1:1", "[::1]:1"])
def test_loopback_addresses_never_use_a_proxy(address: str) -> None:
    assert dict(channel_options(address, 5.0))["grpc.enable_http_proxy"] == 0
    assert "grpc.enable_http_proxy" not in dict(channel_options("kws.example.org:50051", 5.0))
