"""`earmark wyoming`, as a process, with the client of the package `wyoming`."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_client import Client, KeywordSetting
from earmark_server.embedded import serve_in_thread
from support import tiny_model, tiny_models
from support.deadlines import DEADLINE_S
from support.earmark_command import earmark, running
from support.environment import ADMIT_ALWAYS
from support.restartable_server import RestartableServer

pytest.importorskip("wyoming")

import earmark_wyoming.satellite
from earmark_wyoming.satellite import Satellite
from earmark_wyoming.wake_words import WakeWord
from support.wyoming_bridge import Bridge, bridge, describe, read
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient, AsyncTcpClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection, NotDetected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from wyoming.event import Event

RATE_HZ = 16_000
WORDS = [(0.5, "low"), (1.5, "mid"), (2.5, "high")]
SAMPLES = (tiny_model.recording(WORDS, 4.0) * 32768).round().astype("<i2")


@pytest.fixture(scope="module")
def port(address: str) -> Iterator[int]:
    with bridge(address) as (port, running_bridge):
        running_bridge.until("serving satellites")
        yield port


async def satellite(
    port: int,
    samples: bytes,
    *,
    rate: int = RATE_HZ,
    width: int = 2,
    channels: int = 1,
    names: list[str] | None = None,
    begin_ms: int | None = 1000,
    chunk_bytes: int = 2048,
) -> list[Event]:
    """Send audio as a satellite does; return the events until the end of the audio."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Detect(names=names).event())
        await client.write_event(AudioStart(rate, width, channels, begin_ms).event())
        for start in range(0, len(samples), chunk_bytes):
            chunk_ms = None if begin_ms is None else begin_ms + round(start / width / channels / rate * 1000)
            data = samples[start : start + chunk_bytes]
            await client.write_event(AudioChunk(rate, width, channels, data, chunk_ms).event())
        await client.write_event(AudioStop(timestamp=None).event())
        await client.write_event(Ping(text="end").event())  # answered after all that came before
        events: list[Event] = []
        async with asyncio.timeout(DEADLINE_S):
            while (event := await client.read_event()) is not None and not Pong.is_type(event.type):
                events.append(event)
        return events


def detections(events: list[Event]) -> list[Detection]:
    assert all(Detection.is_type(event.type) for event in events), events
    return [Detection.from_event(event) for event in events]


def test_describe_names_every_keyword_of_every_model(port: int) -> None:
    (program,) = asyncio.run(describe(port)).wake
    assert (program.name, program.installed) == ("earmark", True)
    assert [(one.name, one.phrase, one.version, one.installed) for one in program.models] == [
        (word, word, "1.0.0", True) for word in ("low", "mid", "high")
    ]


def test_a_wake_word_is_detected_with_the_satellites_timestamp(port: int) -> None:
    found = detections(asyncio.run(satellite(port, SAMPLES.tobytes(), begin_ms=5_000_000)))
    assert [one.name for one in found] == ["low", "mid", "high"]
    for one, (start_s, _) in zip(found, WORDS, strict=True):
        assert one.timestamp is not None
        assert start_s * 1000 < one.timestamp - 5_000_000 < start_s * 1000 + 300


def test_without_timestamps_they_count_from_the_start(port: int) -> None:
    found = detections(asyncio.run(satellite(port, SAMPLES.tobytes(), begin_ms=None)))
    assert [round((one.timestamp or 0) / 1000) for one in found] == [1, 2, 3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["mid"], ["mid"]), (["HIGH", "low"], ["low", "high"]), ([], ["low", "mid", "high"])],
)
def test_only_the_wake_words_asked_for_are_detected(port: int, names: list[str], expected: list[str]) -> None:
    found = detections(asyncio.run(satellite(port, SAMPLES.tobytes(), names=names)))
    assert [one.name for one in found] == expected


def test_audio_without_a_wake_word_is_not_detected(port: int) -> None:
    (event,) = asyncio.run(satellite(port, bytes(64_000)))
    assert NotDetected.is_type(event.type)


def test_an_unknown_wake_word_is_an_error_that_names_the_known_ones(port: int) -> None:
    error, end = asyncio.run(satellite(port, SAMPLES.tobytes(), names=["ok_nabu"]))
    assert Error.is_type(error.type)
    assert Error.from_event(error).text == (
        "there is no wake word 'ok_nabu': the wake words are low, mid, high"
    )
    assert NotDetected.is_type(end.type)


@pytest.mark.parametrize("chunk_bytes", [999, 2048, 100_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_any_width_and_number_of_channels(port: int, width: int, channels: int, chunk_bytes: int) -> None:
    wide = (np.repeat(SAMPLES, channels).astype("<i4") << 16).view(np.uint8).reshape(-1, 4)
    data = wide[:, 4 - width :].tobytes()
    found = detections(
        asyncio.run(satellite(port, data, width=width, channels=channels, chunk_bytes=chunk_bytes))
    )
    assert [one.name for one in found] == ["low", "mid", "high"]


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_any_rate(port: int, rate: int) -> None:
    positions = np.arange(0, len(SAMPLES), RATE_HZ / rate)
    resampled = np.interp(positions, np.arange(len(SAMPLES)), SAMPLES).astype("<i2")
    found = detections(asyncio.run(satellite(port, resampled.tobytes(), rate=rate)))
    assert [one.name for one in found] == ["low", "mid", "high"]
    assert all(
        abs((one.timestamp or 0) - 1000 - 1000 * s - 100) < 200
        for one, (s, _) in zip(found, WORDS, strict=True)
    )


def test_a_rate_that_the_server_rejects_is_an_error(port: int) -> None:
    error, _ = asyncio.run(satellite(port, bytes(100), rate=4000))
    assert Error.from_event(error).code == "UNSUPPORTED_SAMPLE_RATE"


def test_many_satellites_at_once(port: int) -> None:
    async def run() -> list[list[Event]]:
        return await asyncio.gather(*(satellite(port, SAMPLES.tobytes(), begin_ms=n) for n in range(40)))

    for events in asyncio.run(run()):
        assert [one.name for one in detections(events)] == ["low", "mid", "high"]


def test_a_connection_serves_one_stream_after_another(port: int) -> None:
    async def run() -> None:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            for _ in range(2):
                await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
                await client.write_event(AudioChunk(RATE_HZ, 2, 1, SAMPLES.tobytes()).event())
                assert [(await read(client, Detection)).name for _ in WORDS] == ["low", "mid", "high"]
                # Home Assistant detects again on the same connection, without a new start.
                await client.write_event(Detect(names=["mid"]).event())
                await client.write_event(AudioChunk(RATE_HZ, 2, 1, SAMPLES.tobytes()).event())
                assert (await read(client, Detection)).name == "mid"
                await client.write_event(Detect(names=None).event())
                await client.write_event(AudioStop().event())

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"{}\n",
        b"[]\n",
        b"\xff\xfe\n",
        b'{"type": "audio-chunk"}\n',
        b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}}\n',
        b'{"type": "describe", "data_length": -1}\n',
        b'{"type": "describe", "data_length": 99999999999}\n',
        b'{"type": "describe", "payload_length": "many"}\n',
        b'{"type": "audio-start", "data": {"rate": "fast", "width": 2, "channels": 1}}\n',
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 0, "channels": 1}}\n',
        b'{"type": "audio-chunk", "data": {"rate": 0, "width": 2, "channels": 0}, "payload_length": 2}\n\0\0',
        b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, '
        b'"payload_length": 2000000}\n',
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1, "timestamp": 1e999}}\n',
        b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1, "timestamp": NaN}, '
        b'"payload_length": 2}\n\0\0',
        b'{"type": "detect", "data": {"names": ["no"' + b', "no"' * 256 + b"]}}\n",
        b"x" * 200_000,
        b'{"type": "' + b"[" * 60_000 + b'"}\n',
        b"[" * 60_000 + b"\n",
    ],
)
def test_garbage_ends_its_connection_only(address: str, data: bytes) -> None:
    with bridge(address) as (port, running_bridge):
        running_bridge.until("serving satellites")
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
        assert len(detections(asyncio.run(satellite(port, SAMPLES.tobytes())))) == 3
        assert not any("Traceback" in line for line in running_bridge.lines), running_bridge.lines


def test_the_number_of_connections_is_limited(address: str) -> None:
    with bridge(address, "--max-connections", "2") as (port, running_bridge):
        running_bridge.until("serving satellites")
        first, second = (socket.create_connection(("127.0.0.1", port), DEADLINE_S) for _ in range(2))
        with first, second, socket.create_connection(("127.0.0.1", port), DEADLINE_S) as third:
            assert third.recv(1) == b""
            running_bridge.until("rejected: there are 2 connections")


@pytest.mark.slow
def test_the_bridge_waits_for_its_server_and_survives_a_restart(tiny_model_path: Path) -> None:
    server = RestartableServer(tiny_model_path)
    with bridge(server.address) as (port, running_bridge):
        running_bridge.until("waiting for it")
        with server:
            running_bridge.until("serving satellites")

            async def run() -> None:
                async with AsyncTcpClient("127.0.0.1", port) as client:
                    first, rest = SAMPLES[: 2 * RATE_HZ].tobytes(), SAMPLES[2 * RATE_HZ :].tobytes()
                    await client.write_event(AudioChunk(RATE_HZ, 2, 1, first).event())
                    assert [(await read(client, Detection)).name for _ in range(2)] == ["low", "mid"]
                    server.kill()
                    await client.write_event(AudioChunk(RATE_HZ, 2, 1, rest).event())
                    await asyncio.to_thread(server.start)
                    detection = await read(client, Detection)
                    assert detection.name == "high"
                    assert 2500 < detection.timestamp < 2800

            asyncio.run(run())


@pytest.mark.slow
def test_satellites_go_on_after_the_server_got_another_model(tmp_path: Path) -> None:
    server = RestartableServer(tiny_models.build(tmp_path, "tiny"))
    with server, bridge(server.address) as (port, running_bridge):
        running_bridge.until("serving satellites")
        folder = tmp_path / "newer"  # the replaced model is kept beside its file
        folder.mkdir()
        server.model_path = tiny_model.build(
            folder / "tiny.onnx", document=tiny_model.metadata() | {"version": "1.0.1"}
        )

        def restart() -> None:
            server.kill()
            server.start()

        asyncio.run(_until_detected_after(restart, port, running_bridge, "another key or model file"))


def test_satellites_go_on_after_their_stream_was_too_long(tiny_model_path: Path) -> None:
    with (
        serve_in_thread(model=(str(tiny_model_path),), max_stream_s=3.2) as address,
        bridge(address) as (port, running_bridge),
    ):
        running_bridge.until("serving satellites")
        asyncio.run(_until_detected_after(lambda: None, port, running_bridge, "at most 3.2 s"))


@asynccontextmanager
async def connected_satellite(address: str, words: list[WakeWord]) -> AsyncIterator[AsyncTcpClient]:
    """Yield the connection of a satellite to a bridge that has these wake words now."""
    served = asyncio.Event()
    async with Client(address) as client:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Satellite(client, lambda: words, reader, writer, lambda _: None).run()
            served.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, AsyncTcpClient(*server.sockets[0].getsockname()) as connection:
            yield connection
        await served.wait()


def test_a_rejected_satellite_gets_the_wake_words_that_the_server_has_later(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earmark_wyoming.satellite, "_REJECTED_RETRY_S", 0.0)
    low = WakeWord("low", "tiny", "1.0.0", KeywordSetting("low", model="tiny"), is_default=True)
    words = [replace(low, model="former", setting=KeywordSetting("low", model="former"))]

    async def run() -> None:
        async with connected_satellite(address, words) as connection:
            chunk = AudioChunk(RATE_HZ, 2, 1, SAMPLES.tobytes())
            await connection.write_event(chunk.event())
            assert (await read(connection, Error)).code == "UNKNOWN_MODEL"
            words[:] = [low]
            await connection.write_event(chunk.event())
            detection = await read(connection, Detection)
            assert detection.name == "low"
            assert 4500 < detection.timestamp < 4800  # the first chunk counts, too

    asyncio.run(run())


def test_a_wake_word_that_no_model_has_is_reported_once_and_used_once_a_model_has_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earmark_wyoming.satellite, "_REJECTED_RETRY_S", 0.0)
    low = WakeWord("low", "tiny", "1.0.0", KeywordSetting("low", model="tiny"), is_default=True)
    words: list[WakeWord] = []

    async def run() -> None:
        async with connected_satellite(address, words) as connection:
            chunk = AudioChunk(RATE_HZ, 2, 1, SAMPLES.tobytes())
            await connection.write_event(Detect(names=["low"]).event())
            for _ in range(3):
                await connection.write_event(chunk.event())
            assert (await read(connection, Error)).code == "unknown-wake-word"
            words[:] = [low]
            await connection.write_event(chunk.event())
            event = await connection.read_event()  # no second error comes before it
            assert event is not None
            assert Detection.is_type(event.type)

    asyncio.run(run())


async def _until_detected_after(
    fault: Callable[[], None], port: int, running_bridge: Bridge, message: str
) -> None:
    """Detect words, inject a fault, wait for its message, and send words until others are detected."""
    async with AsyncTcpClient("127.0.0.1", port) as client:

        async def send(samples: np.ndarray) -> None:
            await client.write_event(AudioChunk(RATE_HZ, 2, 1, samples.tobytes()).event())

        await send(SAMPLES[: 3 * RATE_HZ])
        assert [(await read(client, Detection)).name for _ in WORDS] == ["low", "mid", "high"]
        await asyncio.to_thread(fault)
        await send(SAMPLES)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.to_thread(running_bridge.until, message)
            detected = asyncio.create_task(client.read_event())
            while not detected.done():  # audio is dropped until the new stream begins
                await send(SAMPLES)
                await asyncio.wait([detected], timeout=0.2)
        event = detected.result()
        assert event is not None
        assert Detection.is_type(event.type), event


@pytest.mark.parametrize("mid", ["mid=0.5", "tiny/mid=0.5"])
def test_the_keywords_and_thresholds_of_the_command_line_apply(address: str, mid: str) -> None:
    with bridge(address, "--keyword", mid, "--keyword", "high") as (port, running_bridge):
        assert "Wake words: mid, high" in running_bridge.until("serving satellites")
        found = detections(asyncio.run(satellite(port, SAMPLES.tobytes())))
        assert [one.name for one in found] == ["mid", "high"]


@pytest.mark.slow
def test_the_words_of_several_models_share_one_stream(tmp_path: Path) -> None:
    paths = tuple(str(tiny_models.build(tmp_path, name)) for name in ("tiny", "slow", "gated"))
    # A stream counts once for each of its models: two streams would be too many.
    with serve_in_thread(model=paths, **{**ADMIT_ALWAYS, "max_streams": 2}) as address:
        with bridge(address, "--model", "tiny", "--model", "slow") as (port, running_bridge):
            line = running_bridge.until("serving satellites")
            assert "Wake words: low, mid, high, low (slow), mid (slow)" in line
            found = detections(asyncio.run(satellite(port, SAMPLES.tobytes())))
            assert sorted(one.name or "" for one in found) == [
                "high",
                "low",
                "low (slow)",
                "mid",
                "mid (slow)",
            ]
            found = detections(asyncio.run(satellite(port, SAMPLES.tobytes(), names=["low (slow)", "high"])))
            assert [one.name for one in found] == ["low (slow)", "high"]
        options = ["--keyword", "tiny/high", "--keyword", "slow/low=0.7"]
        with bridge(address, *options) as (port, running_bridge):
            assert "Wake words: high, low\n" in running_bridge.until("serving satellites")
            found = detections(asyncio.run(satellite(port, SAMPLES.tobytes())))
            assert sorted(one.name or "" for one in found) == ["high", "low"]
        with bridge(address, "--model", "nosuch") as (_, running_bridge):
            running_bridge.until("the server has no model 'nosuch'")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (["xylophone"], "no model of the server has the keyword 'xylophone'"),
        (["tiny/xylophone"], "no model of the server has the keyword 'tiny/xylophone'"),
        (["mid=0.5", "mid=0.7"], "the keyword 'mid' of the model 'tiny' is given twice"),
        (["mid=0.5", "tiny/mid"], "the keyword 'mid' of the model 'tiny' is given twice"),
    ],
)
def test_wrong_keywords_of_the_command_line_are_reported(
    address: str, keywords: list[str], message: str
) -> None:
    with bridge(address, *(f"--keyword={keyword}" for keyword in keywords)) as (_, running_bridge):
        running_bridge.until(message)
        assert running_bridge.process.wait(DEADLINE_S) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_also_with_open_connections(address: str, number: signal.Signals) -> None:
    with bridge(address) as (port, running_bridge):
        running_bridge.until("serving satellites")
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
            head = {"type": "audio-start", "data": {"rate": RATE_HZ, "width": 2, "channels": 1}}
            connection.sendall(json.dumps(head).encode() + b"\n")
            connection.sendall(b'{"type": "ping"}\n')
            assert connection.recv(100)
            running_bridge.process.send_signal(number)
            assert running_bridge.process.wait(DEADLINE_S) == 0
        assert len(running_bridge.lines) == 1, running_bridge.lines


def test_an_address_that_cannot_be_listened_on_is_reported(address: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for uri, cause in {
        f"unix://{tmp_path}/absent/a.sock": "No such file or directory",
        f"unix://{tmp_path}/file": "the file there is not a socket",
        "tcp://no.invalid:1": "Name or service not known",
        "tcp://a..b:1": "its host is neither an address nor a name",
    }.items():
        done = earmark("wyoming", "--server", address, "--uri", uri)
        assert done.returncode == 1
        assert done.stderr == f"earmark: cannot listen on {uri}: {cause}: give another --uri\n"


def test_the_port_that_is_in_use_is_reported(address: str, port: int) -> None:
    done = earmark("wyoming", "--server", address, "--uri", f"tcp://127.0.0.1:{port}")
    assert done.returncode == 1
    assert "Address already in use: give another --uri" in done.stderr


@pytest.mark.parametrize(
    "uri", ["", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "http://a:1", "stdio://"]
)
def test_an_address_that_is_none_is_wrong_usage(uri: str) -> None:
    done = earmark("wyoming", "--uri", uri)
    assert done.returncode == 2
    assert "is neither tcp://HOST:PORT nor unix://PATH" in done.stderr


@pytest.mark.slow
def test_a_unix_socket_is_served(address: str, tmp_path: Path) -> None:
    path = tmp_path / "wake.sock"
    with running("wyoming", "--server", address, "--uri", f"unix://{path}") as process:
        Bridge(process).until("serving satellites")

        async def run() -> Info:
            async with AsyncClient.from_uri(f"unix://{path}") as client:
                await client.write_event(Describe().event())
                return await read(client, Info)

        assert len(asyncio.run(run()).wake[0].models) == 3
