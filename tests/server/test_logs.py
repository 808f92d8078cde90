from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server import logs
from support.deadlines import DEADLINE_S
from support.ports import free_port
from support.server_rig import chunks, config, detections, pcm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("earmark_server")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


CLIENT_TEXT = "".join(["what a", " client sent"])
"""In two parts, because a traceback shows source lines."""

LOGGER = logging.getLogger("earmark_server.somewhere")


class LogFile:
    """A file for the log, and the lines in it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.fileno = self._file.fileno

    def lines(self) -> list[str]:
        self._file.seek(0)
        return self._file.read().decode().splitlines()


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    log_file = LogFile(tmp_path / "log")
    yield log_file
    log_file._file.close()


def test_the_text_format_has_keys_and_values(log_file: LogFile) -> None:
    logs.configure("info", "text", log_file.fileno())
    logs.log(LOGGER, logging.INFO, "call ended", audio_s=1.5, request_id='a "b" \n c', reason=None, empty="")
    (line,) = log_file.lines()
    assert line.startswith("time=20")
    assert line.endswith('level=info event="call ended" audio_s=1.5 request_id="a \\"b\\" \\n c" empty=""')


def test_the_json_format_has_one_object_per_line(log_file: LogFile) -> None:
    logs.configure("info", "json", log_file.fileno())
    logs.log(LOGGER, logging.INFO, "call ended", audio_s=1.5, request_id="a\nb", reason=None)
    try:
        raise ValueError("why")
    except ValueError as error:
        logs.log(LOGGER, logging.ERROR, "internal error", exc_info=error, incident="1234")
    first, second = map(json.loads, log_file.lines())
    assert first.pop("time").endswith("Z")
    assert first == {"level": "info", "event": "call ended", "audio_s": 1.5, "request_id": "a\nb"}
    assert second["incident"] == "1234"
    assert "in test_the_json_format_has_one_object_per_line" in second["traceback"]
    assert second["traceback"].endswith("builtins.ValueError")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_path_that_is_not_utf8_is_valid_json(log_file: LogFile, log_format: str) -> None:
    logs.configure("info", log_format, log_file.fileno())
    logs.log(LOGGER, logging.INFO, "model loaded", path=os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80\\udce9"))
    (line,) = log_file.lines()
    quoted = line.partition("path=" if log_format == "text" else '"path": ')[2].rstrip("}")
    # Strict parsers reject an unpaired surrogate, which Python would write for the byte.
    assert json.loads(quoted) == "caf\\udce9 \N{GRINNING FACE}\\udce9"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_states_the_places_and_types_of_errors_but_not_their_texts(
    log_file: LogFile, log_format: str
) -> None:
    logs.configure("info", log_format, log_file.fileno())
    try:
        try:
            raise ValueError(CLIENT_TEXT)
        except ValueError as cause:
            cause.add_note(CLIENT_TEXT)
            raise RuntimeError([CLIENT_TEXT]) from cause
    except RuntimeError as error:
        logs.log(LOGGER, logging.ERROR, "internal error", exc_info=error)
        # The same through the logger of a library.
        logging.getLogger("library").exception("failed")
    text = "\n".join(log_file.lines())
    assert CLIENT_TEXT not in text
    assert text.count("builtins.RuntimeError") == text.count("builtins.ValueError") == 2
    assert text.count("in test_a_traceback_states") == 4


def test_uncaught_errors_are_logged_in_the_same_format() -> None:
    code = (
        "import asyncio, threading, sys; from earmark_server import logs; logs.configure('info', 'json')\n"
        "def fail(text): raise ValueError(text)\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    logs.log_uncaught_errors(loop)\n"
        "    loop.call_soon(fail, sys.argv[1])\n"
        "    await asyncio.to_thread(lambda: None)\n"
        "    thread = threading.Thread(target=fail, args=[sys.argv[1]]); thread.start(); thread.join()\n"
        "    fail(sys.argv[1])\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, CLIENT_TEXT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert CLIENT_TEXT not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["uncaught error"] * 3
    assert all("in fail" in line["traceback"] for line in lines)


def test_the_level_applies_and_libraries_log_warnings_only(log_file: LogFile) -> None:
    logs.configure("warning", "text", log_file.fileno())
    logs.log(LOGGER, logging.INFO, "omitted")
    logging.getLogger("grpc").info("omitted")
    logging.getLogger("grpc").warning("written")
    (line,) = log_file.lines()
    assert line.endswith("level=warning event=written logger=grpc")


def test_a_worker_writes_each_line_in_one_call_and_states_its_id() -> None:
    code = (
        "import logging; from earmark_server import logs; logs.configure('info', 'json', worker=7);"
        "logs.log(logging.getLogger('earmark_server'), logging.INFO, 'long', value='x' * 50_000)"
    )
    # On this kind of socket, one write is one message.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
        line = json.loads(ours.recv(1 << 20))
    assert (line["event"], line["worker"], len(line["value"])) == ("long", 7, 50_000)


def test_lines_lost_to_a_full_disk_are_counted(log_file: LogFile) -> None:
    logs.configure("info", "json", log_file.fileno())
    logs.log(LOGGER, logging.INFO, "one", value="x" * 100)
    size = os.stat(log_file.fileno()).st_size
    # Like a full disk, the limit lets the part of a line be log_file that still fits.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))
    try:
        for _ in range(3):
            logs.log(LOGGER, logging.INFO, "two", value="x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    logs.log(LOGGER, logging.INFO, "three")
    logs.log(LOGGER, logging.INFO, "four")
    first, torn, *rest = log_file.lines()
    assert json.loads(first)["event"] == "one"
    assert len(torn) == 50
    lost, *others = map(json.loads, rest)
    assert (lost["level"], lost["event"], lost["lines"]) == ("warning", "log lines lost", 3)
    assert [line["event"] for line in others] == ["three", "four"]


def test_a_reader_that_does_not_read_blocks_nothing() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb") as writer:
        logs.configure("info", "json", writer.fileno())
        # Far more than fits into a pipe, so that a write that waits would wait for ever.
        for _ in range(5000):
            logs.log(LOGGER, logging.INFO, "line", value="x" * 100)
        buffered = reader.read1(1 << 20).splitlines()
        logs.log(LOGGER, logging.INFO, "last")
        lost, last = map(json.loads, reader.read1(1 << 20).splitlines())
    assert lost["lines"] == 5000 - len(buffered)
    assert last["event"] == "last"


class FullPipe:
    """A pipe, or another channel, whose reader has read a little of what filled it, and then stopped."""

    def __init__(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_pipe = kind != "socket"
        if self.is_pipe:
            self.reading, self.writing = os.pipe()
        else:
            self.reading, self.writing = (each.detach() for each in socket.socketpair())
        if kind == "foreign pipe":
            # As in a container, where the pipe belongs to another user.
            monkeypatch.setattr(logs.os, "open", self._deny)

    @staticmethod
    def _deny(*_: object) -> int:
        raise PermissionError

    def fill(self) -> None:
        os.set_blocking(self.writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"x" * 4095 + b"\n")
        os.set_blocking(self.writing, True)
        os.read(self.reading, 4096)
        if not self.is_pipe:  # a socket is ready only when half of its buffer is free
            os.read(self.reading, 150_000)

    def read_all(self) -> bytes:
        os.set_blocking(self.reading, False)
        content = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                content += os.read(self.reading, 1 << 20)
        return content

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture(params=["pipe", "foreign pipe", "socket"])
def full_pipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FullPipe]:
    pipe = FullPipe(request.param, monkeypatch)
    yield pipe
    pipe.close()


def test_a_long_line_does_not_wait_for_a_reader_that_has_stopped(full_pipe: FullPipe) -> None:
    logs.configure("info", "json", full_pipe.writing)
    full_pipe.fill()
    writer = threading.Thread(
        target=logs.log, args=(LOGGER, logging.INFO, "long"), kwargs={"value": "x" * 1_000_000}, daemon=True
    )
    writer.start()
    writer.join(DEADLINE_S)
    is_blocked = writer.is_alive()
    content = full_pipe.read_all()
    assert not is_blocked
    logs.log(LOGGER, logging.INFO, "next")
    content += full_pipe.read_all()
    lost, following = map(json.loads, content.splitlines()[-2:])
    assert (lost["event"], lost["lines"]) == ("log lines lost", 1)
    assert following["event"] == "next"
    assert os.get_blocking(full_pipe.writing)  # others may write there too


def test_a_long_line_is_completed_if_its_reader_reads(full_pipe: FullPipe) -> None:
    logs.configure("info", "json", full_pipe.writing)
    # It waits for the reader as long as necessary, on a busy machine too.
    with pytest.MonkeyPatch.context() as patch, os.fdopen(os.dup(full_pipe.reading), "rb") as reader:
        patch.setattr(logs, "_WRITE_TIMEOUT_S", DEADLINE_S)
        lines: list[bytes] = []
        thread = threading.Thread(target=lambda: lines.append(reader.readline()))
        thread.start()
        logs.log(LOGGER, logging.INFO, "long", value="x" * 500_000)
        thread.join()
    assert len(json.loads(lines[0])["value"]) == 500_000


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["2>&-", "2>/dev/full", "2> >(exec true)"])
def test_a_server_serves_even_if_its_log_cannot_be_written(tiny_model_path: Path, broken: str) -> None:
    port = free_port()
    command = f"{sys.executable} -m earmark_server --port={port} --model={tiny_model_path}"
    process = subprocess.Popen(["bash", "-c", f"exec {command} {broken}"])
    try:
        options = (("grpc.max_reconnect_backoff_ms", 100), ("grpc.use_local_subchannel_pool", 1))
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            grpc.channel_ready_future(channel).result(DEADLINE_S)
            stub = stubs.KeywordSpottingServiceStub(channel)
            for _ in range(3):
                requests = iter([config(), *chunks(pcm())])
                assert len(detections(stub.StreamingSpot(requests, timeout=DEADLINE_S))) == 4
            with pytest.raises(grpc.RpcError):
                list(stub.StreamingSpot(iter([*chunks(pcm())]), timeout=DEADLINE_S))
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()


def test_lines_of_a_library_are_sampled_and_short(log_file: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("earmark_audio.line_sampler.time.monotonic", lambda: now_s)
    logs.configure("info", "json", log_file.fileno())
    library = logging.getLogger("grpc._cython.cygrpc")
    for _ in range(100):
        library.error("Invalid encoding on %s", b"Bearer 'it's a secret\xff" * 8000)
    logging.getLogger("other").error("x" * 8000)
    logs.log(LOGGER, logging.INFO, "own", text="x" * 8000)
    now_s += 1
    library.error("later")
    *repeated, long, own, later = log_file.lines()
    assert len(long) < 500
    assert len(repeated) == 20
    assert {json.loads(line)["event"] for line in repeated} == {"Invalid encoding on b'...'"}
    assert len(own) > 8000
    assert json.loads(later)["suppressed"] == 80


def test_headers_that_are_no_text_do_not_fill_the_log(tiny_model_path: Path) -> None:
    """gRPC writes a line for each of them, also for a stranger's."""
    from support.server_process import ServerProcess

    from benchmarks.loadgen import http2_frames as frames

    count, size = 100, 4000
    header = b"\x10\x05x-abc\x7f\xa1\x1e" + b"\xff" * size
    method = frames.request_headers("localhost", "/earmark.v1.KeywordSpottingService/ListModels")
    with ServerProcess("--port=0", f"--model={tiny_model_path}", "--log-format=json") as server:
        port = server.wait_until_serving()
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
            connection.sendall(frames.connection_preface())
            for number in range(1, 2 * count, 2):
                connection.sendall(
                    frames.frame(
                        frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, method + header
                    )
                )
            server.wait_for("call ended")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert (
                len(
                    detections(
                        stubs.KeywordSpottingServiceStub(channel).StreamingSpot(
                            iter([config(), *chunks(pcm())]), timeout=DEADLINE_S
                        )
                    )
                )
                == 4
            )
        server.process.terminate()
        written = sum(len(line) for line in server.text_lines())
    assert written < count * size / 5
