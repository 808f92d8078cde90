"""One channel of several, and each separately."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark_client import (
    Client,
    Detection,
    Encoding,
    Ended,
    InvalidRequestError,
    Silence,
    Started,
    stream_channels,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_model
from support.both_clients import DRIVERS, Driver

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 16_000
# What is said on each of three channels.
WORDS = [[(0.5, "low"), (2.0, "mid")], [(1.0, "high")], []]
CHANNELS = np.stack([tiny_model.recording(words, 3.0, noise=0.001) for words in WORDS], axis=1)
SAMPLES = (CHANNELS * 32767).astype("<i2")
EXPECTED = [[word for _, word in words] for words in WORDS]

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])


def keywords(events: Any) -> list[str]:
    return [event.keyword for event in events if isinstance(event, Detection)]


@both
@pytest.mark.parametrize("channel", [1, 2, 3])
@pytest.mark.parametrize("length", [1001, 1 << 20])
def test_a_stream_of_one_channel(client: Driver, address: str, channel: int, length: int) -> None:
    data = SAMPLES.tobytes()
    chunks = [data[start : start + length] for start in range(0, len(data), length)]
    events = client.events(address, chunks, sample_rate_hz=RATE_HZ, channels=3, channel=channel)
    assert keywords(events) == EXPECTED[channel - 1]
    alone = client.events(address, [SAMPLES[:, channel - 1].tobytes()], sample_rate_hz=RATE_HZ)
    assert [e for e in events if isinstance(e, Detection)] == [e for e in alone if isinstance(e, Detection)]


@both
@pytest.mark.parametrize("channel", [1, 2, 3])
def test_a_recording_of_which_one_channel_is_processed(client: Driver, address: str, channel: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE_HZ, format="WAV")
    whole = client.call(address, "spot", file.getvalue(), channel=channel)
    raw = client.call(address, "spot", SAMPLES.tobytes(), sample_rate_hz=RATE_HZ, channels=3, channel=channel)
    assert [one.keyword for one in whole.detections] == EXPECTED[channel - 1]
    assert whole.detections == raw.detections


@both
def test_one_channel_of_two_that_cancel_each_other(client: Driver, address: str) -> None:
    left = SAMPLES[:, 0]
    result = client.call(
        address,
        "spot",
        np.stack([left, -left], axis=1).tobytes(),
        sample_rate_hz=RATE_HZ,
        channels=2,
        channel=2,
    )
    assert [one.keyword for one in result.detections] == EXPECTED[0]


@both
@pytest.mark.parametrize("channel", [0, 4, -1, 2.5, float("nan"), "left"])
def test_a_channel_that_is_not_there(client: Driver, address: str, channel: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.events(address, [b""], sample_rate_hz=RATE_HZ, channels=3, channel=channel)
    assert caught.value.reason == "BAD_AUDIO"
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE_HZ, format="WAV")
    with pytest.raises(InvalidRequestError) as caught:
        client.call(address, "spot", file.getvalue(), channel=channel)
    assert caught.value.reason == "BAD_AUDIO"


def by_channel(address: str, chunks: Any, **options: Any) -> dict[int, list[Any]]:
    async def run() -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        async with Client(address) as client:
            async for channel, event in stream_channels(client, chunks, sample_rate_hz=RATE_HZ, **options):
                found.setdefault(channel, []).append(event)
        return found

    return asyncio.run(run())


@settings(max_examples=8, deadline=None)
@given(st.integers(97, 100_000))
def test_each_channel_for_itself(address: str, length: int) -> None:
    data = SAMPLES.tobytes()
    # Up to 200 chunks of this length, and the rest at once.
    starts = [*range(0, len(data), length)][:200]
    chunks: list[Any] = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    found = by_channel(address, [*chunks, Silence(1.0)], channels=3, request_id="three")
    assert sorted(found) == [1, 2, 3]
    for channel, events in found.items():
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Ended)
        assert events[-1].audio_s == 4.0
        assert keywords(events) == EXPECTED[channel - 1]


def test_arrays_and_encodings(address: str) -> None:
    floats = CHANNELS.astype(np.float32)
    for chunks in ([floats], [floats.tobytes()[:1001], floats.tobytes()[1001:]]):
        found = by_channel(address, chunks, channels=3, encoding=Encoding.FLOAT32)
        assert [keywords(found[channel]) for channel in (1, 2, 3)] == EXPECTED


def test_the_first_error_ends_all_channels(address: str) -> None:
    with pytest.raises(InvalidRequestError, match="nonsense"):
        by_channel(address, [SAMPLES.tobytes()], channels=3, keywords=["nonsense"])

    with pytest.raises(InvalidRequestError, match="ends within a sample"):
        by_channel(address, [SAMPLES.tobytes()[:-1]], channels=3)
    with pytest.raises(InvalidRequestError, match="a silence begins within a sample"):
        by_channel(address, [SAMPLES.tobytes()[:-1], Silence(1.0), SAMPLES.tobytes()[-1:]], channels=3)
    with pytest.raises(InvalidRequestError, match="channels must be 1 to 8"):
        by_channel(address, [b""], channels=0)

    def broken() -> Any:
        yield SAMPLES.tobytes()
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        by_channel(address, broken(), channels=3)


@pytest.mark.parametrize("channels", [0, 9, 10**9, 2.5, "2", None])
def test_a_number_of_channels_that_is_not_possible(address: str, channels: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        by_channel(address, [b""], channels=channels)
    assert caught.value.reason == "BAD_AUDIO"


def test_a_stream_of_channels_can_be_closed_early(address: str) -> None:
    async def run() -> None:
        async with Client(address) as client:
            chunks = [SAMPLES.tobytes()] * 100
            events = stream_channels(client, chunks, sample_rate_hz=RATE_HZ, channels=3)
            async for _, event in events:
                if isinstance(event, Detection):
                    break
            await asyncio.wait_for(events.aclose(), 20)

    asyncio.run(run())


def test_the_command_processes_one_channel_or_each(address: str, tmp_path: Path) -> None:
    from support.earmark_command import earmark, json_lines

    path = tmp_path / "call.wav"
    soundfile.write(path, SAMPLES, RATE_HZ)
    server = ["--server", address, "--json"]
    for channel in (1, 2, 3):
        raw = earmark(
            "spot", "-", "--channels", "3", "--channel", str(channel), *server, stdin=SAMPLES.tobytes()
        )
        lines = json_lines(raw.stdout)
        assert [one["keyword"] for one in lines if one["type"] == "detection"] == EXPECTED[channel - 1]
    done = earmark("spot", path, "--channel", "each", *server)
    assert done.returncode == 0
    found = [(one["source"], one["keyword"]) for one in json_lines(done.stdout) if one["type"] == "detection"]
    assert found == [
        (f"{path} (channel {channel})", word)
        for channel, words in enumerate(EXPECTED, start=1)
        for word in words
    ]
    missing = earmark("spot", "-", "--channels", "2", "--channel", "3", *server, stdin=b"\0" * 8)
    assert (missing.returncode, "there is no channel 3" in missing.stderr) == (1, True)
    assert earmark("spot", "-", "--channel", "each", *server).returncode == 2
