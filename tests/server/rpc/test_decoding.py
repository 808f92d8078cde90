"""Recordings that are decoded for a stranger: in bounded memory and time, a few at a time."""

from __future__ import annotations

import asyncio
import hashlib
import io
import resource
import struct
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_audio.ffmpeg import has_package
from earmark_server.rpc import decoding_process, recordings
from earmark_server.rpc.decoding_process import decode_in_process
from earmark_spotter import AudioError, DecodedRecording, TooLongError, decode_recording
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import beside, failure, run, serving

if TYPE_CHECKING:
    from pathlib import Path

needs_ffmpeg = pytest.mark.skipif(not has_package(), reason="PyAV is not installed")


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + name + body


def full(name: bytes, *content: bytes) -> bytes:
    return box(name, bytes(4), *content)


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def m4a_that_states(samples: int) -> bytes:
    """Return an M4A file of 600 bytes that states so many samples: FFmpeg builds a table of all of them."""
    matrix = numbers(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    movie = full(
        b"mvhd",
        numbers(0, 0, 8000, 8000, 0x10000),
        b"\1\0\0\0" + bytes(8),
        matrix,
        bytes(24),
        numbers(2),
    )
    track = box(b"tkhd", numbers(7, 0, 0, 1, 0, 8000), bytes(16), matrix, numbers(0, 0))
    entry = box(b"ulaw", bytes(6) + b"\0\1", bytes(8), struct.pack(">HHHH", 1, 16, 0, 0), numbers(8000 << 16))
    table = box(
        b"stbl",
        full(b"stsd", numbers(1), entry),
        full(b"stts", numbers(1, samples, 2)),
        full(b"stsc", numbers(1, 1, samples, 1)),
        full(b"stsz", numbers(1, samples)),
        full(b"stco", numbers(1, 40)),
    )
    source = box(b"dinf", full(b"dref", numbers(1), full(b"url ")))
    media = box(
        b"mdia",
        full(b"mdhd", numbers(0, 0, 8000, 8000), b"\x55\xc4\0\0"),
        full(b"hdlr", numbers(0), b"soun", bytes(12), b"x\0"),
        box(b"minf", full(b"smhd", bytes(4)), source, table),
    )
    head = box(b"ftyp", b"M4A ", numbers(0), b"M4A ") + box(b"mdat", bytes(64))
    return head + box(b"moov", movie, box(b"trak", track, media))


def flac(seconds: float) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(-100, 100, int(16_000 * seconds)).astype(np.int16)
    soundfile.write(buffer, noise, 16_000, format="FLAC")
    return buffer.getvalue()


@needs_ffmpeg
def test_a_small_file_that_states_a_huge_one_takes_no_memory_of_the_server(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, beside(rig):
            before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            call = rig.stub.Spot(rpcs.SpotRequest(audio=m4a_that_states(40_000_000)), timeout=DEADLINE_S)
            failed = await failure(call)
            assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, "BAD_AUDIO")
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000

    run(scenario)


@needs_ffmpeg
def test_the_process_returns_what_decoding_here_does(m4a: bytes) -> None:
    here, there = decode_recording(m4a), decode_in_process(m4a, None, 300, None)
    assert there.sample_rate_hz == here.sample_rate_hz
    assert there.channels == here.channels == 1
    assert there.notices == here.notices
    np.testing.assert_array_equal(there.samples, here.samples)
    with pytest.raises(TooLongError, match=r"at most 0\.1 s"):
        decode_in_process(m4a, None, 0.1, None)
    with pytest.raises(AudioError, match="There is no channel 2"):
        decode_in_process(m4a, None, 300, 2)


@needs_ffmpeg
def test_decoding_that_takes_too_long_is_ended(m4a: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_process, "TIMEOUT_S", 0.01)
    with pytest.raises(AudioError, match="too much memory or time"):
        decode_in_process(m4a, None, 300, None)


@pytest.fixture
def m4a() -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        samples = (0.1 * np.sin(np.arange(16_000) / 10)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return buffer.getvalue()


class Held:
    """Decoding that lasts until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.running = self.most = 0
        self._lock = threading.Lock()
        monkeypatch.setattr(recordings, "_decode_here", self._decode)

    def _decode(self, audio: bytes, *_: object) -> DecodedRecording:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(DEADLINE_S)
        with self._lock:
            self.running -= 1
        return decode_recording(audio)

    async def wait_until_running(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.running != count:  # noqa: ASYNC110 - it runs on threads
                await asyncio.sleep(0.01)


def test_cancelled_calls_keep_their_turn_until_their_thread_has_ended(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    recording = rpcs.SpotRequest(audio=flac(0.5))

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            for _ in range(3):
                calls = [rig.stub.Spot(recording, timeout=DEADLINE_S) for _ in range(8)]
                await held.wait_until_running(2)
                for call in calls:
                    call.cancel()
            waiting = rig.stub.Spot(recording, timeout=DEADLINE_S)
            await asyncio.sleep(0.2)
            assert (held.running, held.most) == (2, 2)  # of one client
            held.go.set()
            await waiting
            await held.wait_until_running(0)

    run(scenario)


def test_one_client_does_not_keep_the_others_from_decoding(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = Held(monkeypatch)
    recording = rpcs.SpotRequest(audio=flac(0.5))
    names = {"one": "a" * 40, "other": "b" * 40}
    path = tmp_path / "tokens"
    lines = [f"{name} {hashlib.sha256(token.encode()).hexdigest()}" for name, token in names.items()]
    path.write_text("\n".join(lines))

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path)) as rig:
            metadata = {name: (("authorization", f"Bearer {token}"),) for name, token in names.items()}
            calls = [rig.stub.Spot(recording, timeout=DEADLINE_S, metadata=metadata["one"]) for _ in range(6)]
            await held.wait_until_running(2)
            other = rig.stub.Spot(recording, timeout=DEADLINE_S, metadata=metadata["other"])
            await held.wait_until_running(3)
            held.go.set()
            await asyncio.gather(other, *calls)

    run(scenario)
