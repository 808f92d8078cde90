"""Recordings that are decoded for a stranger: in bounded memory and time, a few at a time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import io
import resource
import struct
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_audio.ffmpeg import has_package
from earmark_server.rpc import decoder as decoder_module
from earmark_server.rpc.decoder import FileDecoder
from earmark_server.rpc.requests import SpotCall
from earmark_server.settings import Settings
from earmark_server.status import CallError
from earmark_spotter import AudioError, Container, TooLongError, decode_recording
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import LINEAR16, beside, failure, run, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    here = decode_recording(m4a)

    async def scenario() -> None:
        with decoding(300) as decoder:
            for _ in range(2):
                there = await decoder.decode("", m4a, None)
                assert there.sample_rate_hz == here.sample_rate_hz
                assert there.channels == here.channels == 1
                assert there.notices == here.notices
                np.testing.assert_array_equal(there.samples, here.samples)
            with pytest.raises(AudioError, match="There is no channel 2"):
                await decoder.decode("", m4a, None, 2)
            with pytest.raises(AudioError, match="declares a FLAC recording"):
                await decoder.decode("", m4a, Container.FLAC)
        with decoding(1) as decoder, pytest.raises(TooLongError, match="at most 1 s"):
            await decoder.decode("", flac(2), None)

    run(scenario)


def checksum(page: bytes) -> int:
    """Return the CRC-32 of an Ogg page (RFC 3533, section 6): polynomial 0x04c11db7, not reflected."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFF_FFFF
    return value


def ogg_page(number: int, flags: int, position: int, *packets: bytes) -> bytes:
    laces = b"".join(bytes([255] * (len(each) // 255) + [len(each) % 255]) for each in packets)
    head = b"OggS\0" + struct.pack("<BQII", flags, position, 7, number)
    body = bytes([len(laces)]) + laces + b"".join(packets)
    return head + struct.pack("<I", checksum(head + bytes(4) + body)) + body


def vorbis_with_code_books(books: int, entries: int, dimension: int) -> bytes:
    """Return an Ogg Vorbis file whose header states code books of millions of entries (Vorbis I, 3.2)."""
    fields = [(books - 1, 8)]
    for _ in range(books):
        # Its sync pattern, dimension, entries, ordered: all entries have codes of 25 bits. No lookup.
        fields += [(0x564342, 24), (dimension, 16), (entries, 24), (1, 1), (24, 5)]
        fields += [(entries, entries.bit_length()), (0, 4)]
    fields += [(0, 6), (0, 16)]  # times
    fields += [(0, 6), (1, 16), (0, 5), (0, 2), (4, 4)]  # one floor
    fields += [(0, 6), (0, 16), (0, 24), (16, 24), (15, 24), (0, 6), (0, 8), (0, 3), (0, 1)]  # one residue
    fields += [(0, 6), (0, 16), (0, 1), (0, 1), (0, 2), (0, 8), (0, 8), (0, 8)]  # one mapping
    fields += [(0, 6), (0, 1), (0, 16), (0, 16), (0, 8), (1, 1)]  # one mode
    value = position = 0
    for number, bits in fields:
        value |= number << position
        position += bits
    identification = b"\x01vorbis" + struct.pack("<IBIiiiBB", 0, 1, 16_000, 0, 64_000, 0, 0xB8, 1)
    comment = b"\x03vorbis" + bytes(8) + b"\1"
    setup = b"\x05vorbis" + value.to_bytes(-(-position // 8), "little")
    return (
        ogg_page(0, 2, 0, identification)
        + ogg_page(1, 0, 0, comment, setup)
        + ogg_page(2, 4, 4000, *[bytes(20)] * 3)
    )


@pytest.mark.parametrize("audio", [bytes(1_000_000), b"neither audio nor a text" + bytes([255, 0, 7])])
def test_a_rejected_call_keeps_nothing_of_its_recording(tiny_model_path: Path, audio: bytes) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            gc.collect()
            gc.disable()
            try:
                for fields in ({"model": "unknown", "audio_format": LINEAR16}, {}):
                    await failure(rig.stub.Spot(rpcs.SpotRequest(audio=audio, **fields), timeout=DEADLINE_S))
                async with asyncio.timeout(DEADLINE_S):  # the server may end its call after the client
                    while any(type(each) is SpotCall for each in gc.get_objects()):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            finally:
                gc.enable()

    run(scenario)


def test_a_file_that_crashes_its_decoder_ends_one_call(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, beside(rig):
            before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for books, entries, dimension in ((1, 8_388_607, 1), (256, 16_777_215, 0)):
                audio = vorbis_with_code_books(books, entries, dimension)
                failed = await failure(rig.stub.Spot(rpcs.SpotRequest(audio=audio), timeout=DEADLINE_S))
                assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, "BAD_AUDIO")
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100_000
            response = await rig.stub.Spot(rpcs.SpotRequest(audio=flac(0.5)), timeout=DEADLINE_S)
            assert response.audio_duration.nanos == 500_000_000

    run(scenario)


def test_what_decoders_print_is_not_in_the_log(
    tiny_model_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).bytes(20 * 1000)
    frames = b"".join(b"\xff\xf3\x14\xc0" + noise[i : i + 20] for i in range(0, len(noise), 20))

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = rig.stub.Spot(rpcs.SpotRequest(audio=frames), timeout=DEADLINE_S)
            await asyncio.wait([asyncio.ensure_future(call.code())])

    run(scenario)
    assert "libmpg123" not in "".join(capfd.readouterr())


def test_a_process_that_is_killed_gives_an_error_and_never_a_shorter_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed before it answers, and in the middle of its answer, as when the system has no memory left."""

    class Source:
        """Standard output of a process that is killed once its samples are read."""

        def __init__(self, process: Any) -> None:
            self._source, self._process = process.stdout, process

        def readline(self, limit: int) -> bytes:
            line: bytes = self._source.readline(limit)
            return line

        def readinto(self, buffer: bytearray) -> int:
            self._process.kill()
            self._process.wait()
            count: int = self._source.readinto(buffer)
            return count

        def close(self) -> None:
            self._source.close()

    start = decoder_module._Process._start

    def started(self: Any) -> None:
        start(self)
        self._process.stdout = Source(self._process)

    recording = flac(200)

    async def scenario() -> None:
        with decoding(300) as decoder:
            monkeypatch.setattr(decoder_module._Process, "_start", started)
            with pytest.raises(AudioError, match="too much memory or time"):
                await decoder.decode("", recording, None)
            monkeypatch.undo()
            assert len((await decoder.decode("", recording, None)).samples) == 200 * 16_000

    run(scenario)


def test_a_process_that_ended_while_it_was_idle_is_replaced() -> None:
    async def scenario() -> None:
        with decoding(300) as decoder:
            for _ in range(2):
                assert len((await decoder.decode("", flac(1), None)).samples) == 16_000
                (idle,) = decoder._idle
                idle._process.kill()
                idle._process.wait()
            assert len((await decoder.decode("", flac(1), None)).samples) == 16_000

    run(scenario)


def test_a_process_is_used_again_only_after_an_undamaged_file() -> None:
    async def scenario() -> None:
        with decoding(300) as decoder:
            await decoder.decode("", flac(1), None)
            (process,) = decoder._idle
            await decoder.decode("", flac(2), None)
            assert decoder._idle == [process]
            assert [n.reason for n in (await decoder.decode("", flac(2)[:-9000], None)).notices] == [
                "RECORDING_INCOMPLETE"
            ]
            assert decoder._idle == []
            assert process._process.poll() is not None

    run(scenario)


def test_a_process_that_cannot_start_is_the_servers_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoder_module.sys, "executable", "/bin/false")

    async def scenario() -> None:
        with decoding(300) as decoder, pytest.raises(CallError) as caught:
            await decoder.decode("", flac(1), None)
        assert caught.value.reason == "OVERLOADED"

    run(scenario)
    assert "decoding process cannot start" in caplog.text


def test_decoding_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with decoding(300) as decoder:
            decoder._timeout_s = 0.001
            with pytest.raises(AudioError, match="too much memory or time"):
                await decoder.decode("", flac(1), None)
            decoder._timeout_s = DEADLINE_S
            assert len((await decoder.decode("", flac(1), None)).samples) == 16_000

    run(scenario)


@contextlib.contextmanager
def decoding(max_seconds: float) -> Iterator[FileDecoder]:
    decoder = FileDecoder(Settings(max_recording_s=max_seconds))
    try:
        yield decoder
    finally:
        decoder.close()


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
        decode = decoder_module._Process.decode

        def held(process: Any, request: str, audio: bytes) -> Any:
            with self._lock:
                self.running += 1
                self.most = max(self.most, self.running)
            self.go.wait(DEADLINE_S)
            with self._lock:
                self.running -= 1
            return decode(process, request, audio)

        monkeypatch.setattr(decoder_module._Process, "decode", held)

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
                await held.wait_until_running(1)
                for call in calls:
                    call.cancel()
            waiting = rig.stub.Spot(recording, timeout=DEADLINE_S)
            await asyncio.sleep(0.2)
            assert (held.running, held.most) == (1, 1)  # of one client
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
            await held.wait_until_running(1)
            other = rig.stub.Spot(recording, timeout=DEADLINE_S, metadata=metadata["other"])
            await held.wait_until_running(2)
            held.go.set()
            await asyncio.gather(other, *calls)

    run(scenario)
