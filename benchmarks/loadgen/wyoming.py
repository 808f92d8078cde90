"""Runs a wyoming-openwakeword server or `earmark wyoming`, and sends real-time streams to it.

A Wyoming event is a line of JSON over TCP, followed by its data and its audio; the line states their lengths.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.loadgen.speech import Speech

_START_TIMEOUT_S = 60
_FINAL_WAIT_S = 3.0
_STOP_WAIT_S = 0.5
# The server reports one spoken keyword several times. Reports closer together than this count once.
_SAME_KEYWORD_MS = 1000


@dataclass(frozen=True, slots=True)
class Report:
    """A detection: where its word is, in ms of audio, and when its event was received, in s of audio."""

    timestamp_ms: int
    received_s: float


def is_wyoming_installed(python: Path) -> bool:
    """Return whether a Python interpreter can run wyoming-openwakeword.

    Raises BenchmarkError if `python` is not an executable.
    """
    try:
        result = subprocess.run(
            [python, "-c", "import wyoming_openwakeword"], check=False, capture_output=True
        )
    except OSError as error:
        raise BenchmarkError(f"{python} cannot be run: {error}") from None
    return result.returncode == 0


@contextlib.contextmanager
def run_wyoming_server(python: Path, model: str) -> Iterator[ServerProcess]:
    """Run wyoming-openwakeword with one keyword model on a free loopback port while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(python), "-m", "wyoming_openwakeword", "--uri", f"tcp://127.0.0.1:{port}"]
    command += ["--preload-model", model]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_until_serving(process, port)
        yield ServerProcess(f"127.0.0.1:{port}", process.pid)
    finally:
        # SIGTERM does not end it while its threads wait.
        process.kill()
        process.wait()


@contextlib.contextmanager
def run_bridge(address: str) -> Iterator[ServerProcess]:
    """Run `earmark wyoming` as a client of the server at an address while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "earmark_cli", "wyoming", "--server", address]
    command += ["--uri", f"tcp://127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_serving(process, port)
        yield ServerProcess(f"127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_until_serving(process: subprocess.Popen[bytes], port: int) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise BenchmarkError(
        "the Wyoming server did not start: check the model name, and that the environment of "
        "wyoming-openwakeword has numpy<2."
    )


def stream_to_wyoming(
    server: ServerProcess,
    model: str | None,
    speech: Speech,
    *,
    chunk_count: int,
    count: int,
    same_keyword_ms: int = _SAME_KEYWORD_MS,
) -> list[list[Report]]:
    """Send `count` real-time streams, one per connection; return the detections of each.

    `model`: the wake word to detect, None for all. Of reports closer together than `same_keyword_ms`, the
    first one counts.
    """

    async def run_all() -> list[list[Report]]:
        begin_s = time.monotonic() + 0.2
        # As in the load for Earmark, the streams' chunks are spread evenly over time.
        starts_s = [begin_s + i / count * speech.chunk_s for i in range(count)]
        streams = (_stream(server, model, speech, chunk_count, start_s) for start_s in starts_s)
        return [_first_ones(reports, same_keyword_ms) for reports in await asyncio.gather(*streams)]

    return asyncio.run(run_all())


def _first_ones(reports: Iterable[Report], same_keyword_ms: int) -> list[Report]:
    """Return the reports without those that follow another one too closely."""
    ordered = sorted(reports, key=lambda one: one.timestamp_ms)
    return [
        one
        for i, one in enumerate(ordered)
        if not i or one.timestamp_ms - ordered[i - 1].timestamp_ms >= same_keyword_ms
    ]


async def _stream(
    server: ServerProcess, model: str | None, speech: Speech, chunk_count: int, start_s: float
) -> list[Report]:
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    reading = asyncio.create_task(_read(reader, start_s))
    audio_format = {"rate": speech.sample_rate_hz, "width": 2, "channels": 1}
    writer.write(_event("detect", {"names": [model] if model else []}) + _event("audio-start", audio_format))
    with contextlib.suppress(ConnectionError):
        for i in range(chunk_count):
            await asyncio.sleep(start_s + (i + 1) * speech.chunk_s - time.monotonic())
            timestamp_ms = round(1000 * i * speech.chunk_s)
            chunk = speech.chunks[i % len(speech.chunks)]
            writer.write(_event("audio-chunk", audio_format | {"timestamp": timestamp_ms}, chunk))
            await writer.drain()
        await asyncio.sleep(_FINAL_WAIT_S)
        # Earmark decides on a word at the very end when the audio stops.
        writer.write(_event("audio-stop", {}))
        await writer.drain()
        await asyncio.sleep(_STOP_WAIT_S)
    writer.close()
    return await reading


async def _read(reader: asyncio.StreamReader, start_s: float) -> list[Report]:
    """Read events until the connection ends; return the detections of a stream that starts at `start_s`."""
    reports = []
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while line := await reader.readline():
            head = json.loads(line)
            data = await reader.readexactly(head.get("data_length") or 0)
            await reader.readexactly(head.get("payload_length") or 0)
            if head["type"] == "detection":
                reports.append(Report(json.loads(data)["timestamp"], time.monotonic() - start_s))
    return reports


def _event(kind: str, data: Mapping[str, object], payload: bytes = b"") -> bytes:
    encoded = json.dumps(data).encode()
    head = {"type": kind, "data_length": len(encoded), "payload_length": len(payload)}
    return json.dumps(head).encode() + b"\n" + encoded + payload
