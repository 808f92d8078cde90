"""Arguments of both clients: what is unambiguous is accepted, and anything else is an EarmarkError."""

from __future__ import annotations

import array
import asyncio
import threading
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_client import (
    Client,
    Detection,
    EarmarkError,
    Ended,
    Health,
    InvalidRequestError,
    KeywordSetting,
    Progress,
    Silence,
    SyncClient,
)
from support.both_clients import DRIVERS, Driver
from support.earmark_command import RATE_HZ, WORDS, samples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from earmark_client import Event

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])
X = samples()
FLOATS = X.astype(np.float32) / 32768


class _Tensor:
    """Converts to a numpy array, as a tensor of torch does."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return FLOATS


@both
@pytest.mark.parametrize(
    ("audio", "arguments"),
    [
        ([X.astype(">i2")], {}),
        ([FLOATS.astype(">f4")], {}),
        ([FLOATS.astype("f8")], {"encoding": "float32"}),
        ([array.array("h", X.tobytes())], {}),
        (array.array("h", X.tobytes()), {}),
        ([memoryview(FLOATS)], {}),
        (_Tensor(), {}),
        ([np.stack([X, X], 1)], {"channels": 2.0}),
        ([np.stack([X, X], 1)], {"channels": 2, "channel": 1.0}),
        ([X], {"channel": True}),
        ([np.asfortranarray(np.stack([FLOATS, FLOATS], 1))], {"channels": 2}),
        ([np.repeat(X, 2)[::2]], {"encoding": "LINEAR16"}),
        (X.tobytes(), {"sample_rate_hz": np.float64(RATE_HZ)}),
        (X, {"sample_rate_hz": Fraction(RATE_HZ), "keywords": None, "model": None, "request_id": None}),
        ([X], {"progress_interval_s": np.float32(0.5), "resume_within_s": np.int64(5)}),
    ],
)
def test_what_is_unambiguous_is_accepted(
    client: Driver, address: str, audio: Any, arguments: dict[str, Any]
) -> None:
    events = client.events(address, audio, **{"sample_rate_hz": RATE_HZ, **arguments})
    assert [event.keyword for event in events if isinstance(event, Detection)] == [word for _, word in WORDS]
    assert [event.audio_s for event in events if isinstance(event, Ended)] == [len(X) / RATE_HZ]


@both
@pytest.mark.parametrize(
    ("audio", "arguments"),
    [
        (None, {}),
        (5, {}),
        ([None], {}),
        (["text"], {}),
        (FLOATS[:9].tolist(), {}),
        ([FLOATS[:9].tolist()], {}),
        ([X.astype(np.int32)], {}),
        ([X > 0], {}),
        ([np.float32(0.5)], {}),
        ([Silence("1")], {}),  # type: ignore[arg-type]
        ([Silence(np.complex64(1))], {}),  # type: ignore[arg-type]
        ([Silence(float("nan"))], {}),
        ([X], {"sample_rate_hz": "16000"}),
        ([X], {"sample_rate_hz": None}),
        ([X], {"sample_rate_hz": float("nan")}),
        ([X], {"channels": None}),
        ([X], {"encoding": None}),
        ([X], {"sample_rate_hz": 1, "gate": True}),
        ([X], {"sample_rate_hz": 0, "gate": True}),
        ([X], {"sample_rate_hz": -16_000, "gate": True}),
        ([X], {"keywords": 5}),
        ([X], {"keywords": b"low"}),
        ([X], {"keywords": [5]}),
        ([X], {"keywords": [KeywordSetting("low", threshold="0.5")]}),  # type: ignore[arg-type]
        ([X], {"keywords": [KeywordSetting("low", refractory_s="1")]}),  # type: ignore[arg-type]
        ([X], {"model": 5}),
        ([X], {"request_id": 5}),
        ([X], {"progress_interval_s": "1"}),
        ([X], {"score_interval_s": float("nan")}),
        ([X], {"resume": "token"}),
        ([X], {"resume": Progress(1.0, 0.5, float("nan"), b"token", draining=False)}),
        ([X], {"resume": Progress(1.0, 0.5, float("inf"), b"token", draining=False)}),
        ([X], {"resume": Progress(1.0, 0.5, "0", b"token", draining=False)}),  # type: ignore[arg-type]
        ([X], {"resume": Progress(1.0, 0.5, 0.0, "token", draining=False)}),  # type: ignore[arg-type]
        ([X], {"score_interval_s": np.complex64(1)}),
        ([X], {"channel": float("nan")}),
        ([X], {"resume_within_s": None}),
        ([X], {"resume_within_s": -1}),
        ([X], {"resume_within_s": float("nan")}),
        ([X], {"resume_within_s": float("inf")}),
    ],
)
def test_anything_else_is_an_error_of_the_request(
    client: Driver, address: str, audio: Any, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError):
        client.events(address, audio, **{"sample_rate_hz": RATE_HZ, **arguments})


@pytest.mark.parametrize("kind", [Client, SyncClient])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"address": None}, "an address must be a string"),
        ({"address": b"localhost"}, "an address must be a string"),
        ({"token": b"secret"}, "the token must be a string"),
        ({"tls": "server.pem"}, "tls must be True or Tls"),
        ({"connect_timeout_s": None}, "connect_timeout_s must be 0 to 86400 s, not None"),
        ({"connect_timeout_s": float("nan")}, "connect_timeout_s must be"),
        ({"connect_timeout_s": 1e7}, "connect_timeout_s must be"),
        ({"call_timeout_s": float("inf")}, "call_timeout_s must be"),
        ({"call_timeout_s": 1e10}, "call_timeout_s must be"),
        ({"call_timeout_s": "60"}, "call_timeout_s must be"),
    ],
)
def test_an_argument_of_a_client_that_cannot_be_used_is_an_error(
    kind: Any, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidRequestError, match=problem) as caught:
        kind(**arguments)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "reason", "problem"),
    [
        ({"score_interval_s": float("nan")}, "BAD_CONFIG", "score_interval_s must be a finite number of s"),
        ({"score_interval_s": 0}, "BAD_CONFIG", "must be more than 0 and at most"),
        (
            {"progress_interval_s": "1"},
            "BAD_CONFIG",
            "progress_interval_s must be a finite number of seconds",
        ),
        (
            {"keywords": [KeywordSetting("low", refractory_s=float("inf"))]},
            "BAD_THRESHOLD",
            "the refractory period of low must be a finite number of seconds, not inf",
        ),
    ],
)
def test_an_invalid_time_is_reported_with_its_argument_and_reason(
    address: str, arguments: dict[str, Any], reason: str, problem: str
) -> None:
    with SyncClient(address) as client, pytest.raises(InvalidRequestError, match=problem) as caught:
        list(client.stream([X], sample_rate_hz=RATE_HZ, **arguments))
    assert caught.value.reason == reason


def test_the_message_says_which_times_are_allowed(address: str) -> None:
    problem = "finite number of seconds, at least 0, not -1"
    with SyncClient(address) as client, pytest.raises(InvalidRequestError, match=problem):
        client.stream([X], sample_rate_hz=RATE_HZ, resume_within_s=-1)


@pytest.mark.parametrize("ending", ["read to its end", "left in mid-stream", "never started"])
def test_a_client_works_in_one_event_loop_after_another(address: str, ending: str) -> None:
    client = Client(address)

    async def use() -> None:
        events = client.stream([X], sample_rate_hz=RATE_HZ)
        if ending == "read to its end":
            assert [event async for event in events]
        elif ending == "left in mid-stream":
            await anext(events)
        assert await client.health() is Health.SERVING

    for _ in range(3):
        asyncio.run(use())


def test_a_stream_that_was_made_before_its_loop_ran_leaves_the_client_usable(address: str) -> None:
    client = Client(address)

    async def read(events: AsyncIterator[Event]) -> list[Event]:
        return [event async for event in events]

    for _ in range(2):
        assert isinstance(asyncio.run(read(client.stream([X], sample_rate_hz=RATE_HZ)))[-1], Ended)
        assert asyncio.run(client.health()) is Health.SERVING


def test_a_stream_whose_task_is_cancelled_twice_keeps_no_channel(address: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(320)
            await asyncio.sleep(0.01)

    async def run() -> None:
        async with Client(address) as client:
            started = asyncio.Event()

            async def use() -> None:
                async for _ in client.stream(endless(), sample_rate_hz=RATE_HZ):
                    started.set()

            task = asyncio.create_task(use())
            await started.wait()
            task.cancel()
            await asyncio.sleep(0)  # the stream is being ended now
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert set(client._pool._calls.values()) == {0}

    asyncio.run(run())


def test_a_client_that_another_running_loop_uses_says_so(address: str) -> None:
    client = Client(address)
    used, done = threading.Event(), threading.Event()

    async def use() -> None:
        await client.health()
        used.set()
        await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(use()))
    thread.start()
    try:
        assert used.wait(10)
        with pytest.raises(EarmarkError, match="one client for each event loop"):
            asyncio.run(client.health())
    finally:
        done.set()
        thread.join()
