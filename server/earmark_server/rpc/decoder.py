"""Decodes the files of Spot and Classify in processes of their own.

The files come from strangers, and decoders are large programs in C: a file of 250 bytes can crash one, one
of 3 KB can fill gigabytes, and some print a line for every frame. In a process whose memory and time are
limited, that ends one call. A process is used again only after a file that was undamaged, and that FFmpeg
has not decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from earmark_audio import Decoder, Notice, identify_file
from earmark_spotter import (
    INCOMPLETE,
    AudioError,
    DecodedRecording,
    SampleRateError,
    SpotterError,
    TooLongError,
)

from earmark_server.logs import log
from earmark_server.rpc.decoding_process import LONGEST_LINE_BYTES, memory_bytes
from earmark_server.rpc.turns import Turns
from earmark_server.status import CallError

if TYPE_CHECKING:
    from io import BufferedReader

    from earmark_spotter import Container

    from earmark_server.settings import Settings

_LOGGER = logging.getLogger(__name__)

_PROCESSES, _PROCESSES_PER_CLIENT = 2, 1
_IDLE_S = 30.0
"""A process that has not been used for this long is ended. Starting one takes a third of a second."""
_TIMEOUT_S, _TIMEOUT_SHARE = 30.0, 0.1
"""How long decoding may take: this time, and this share of the longest recording."""
_EXTRA_S = 5
"""How much longer a process may take that nobody waits for any more."""

_ERRORS: dict[str, type[SpotterError]] = {e.reason: e for e in (SampleRateError, TooLongError)}


class FileDecoder:
    """Decodes files, two at a time and one of each client. Create and use it on an event loop."""

    def __init__(self, settings: Settings) -> None:
        self._max_seconds = settings.max_recording_s
        self._timeout_s = _TIMEOUT_S + _TIMEOUT_SHARE * self._max_seconds
        self._max_bytes = memory_bytes(self._max_seconds, settings.max_message_bytes)
        self._turns = Turns(_PROCESSES, _PROCESSES_PER_CLIENT, settings.idle_timeout_s)
        self._idle: list[_Process] = []
        self._ending: asyncio.TimerHandle | None = None

    async def decode(
        self, quota_key: str, audio: bytes, container: Container | None, channel: int | None = None
    ) -> DecodedRecording:
        """Decode a file of a client, also one that is truncated: as far as it goes, with a notice.

        `container`, `channel` and errors are as for `decode_recording`. Raises AudioError also for a file
        whose decoding crashes, or takes too much memory or time, and CallError (OVERLOADED) if no process can
        be started. If the call is cancelled, its process ends.
        """
        request = json.dumps([len(audio), container and container.value, self._max_seconds, channel])
        kind, _ = identify_file(io.BytesIO(audio))
        needs_ffmpeg = kind is not None and kind.decoder is Decoder.FFMPEG
        async with self._turns.turn(quota_key):
            head = None
            while head is None:
                if self._idle and not needs_ffmpeg:
                    process = self._idle.pop()
                else:
                    process = _Process(self._max_bytes, self._timeout_s)
                was_used = process.is_used
                try:
                    head, samples = await self._run(process, request, audio)
                except (EOFError, OSError, TimeoutError) as error:
                    # A process that was idle may have been ended before, because memory was short.
                    if was_used and not isinstance(error, TimeoutError):
                        continue
                    raise AudioError(
                        "The recording cannot be decoded: it is damaged, or takes too much memory or time. "
                        "Convert it, for example with `ffmpeg -i INPUT out.wav`."
                    ) from None
            reasons = [reason for reason, _ in head.get("notices", ())]
            if "reason" in head or INCOMPLETE in reasons or needs_ffmpeg:
                await asyncio.to_thread(process.end)
            else:
                self._idle.append(process)
                self._end_idle_later()
        if "reason" in head:
            raise _ERRORS.get(head["reason"], AudioError)(head["message"])
        notices = tuple(Notice(reason, message) for reason, message in head["notices"])
        return DecodedRecording(
            np.frombuffer(samples, np.float32), head["sample_rate_hz"], head["channels"], notices
        )

    def close(self) -> None:
        """End the processes that are idle; to be called when no call is left."""
        if self._ending is not None:
            self._ending.cancel()
        while self._idle:
            self._idle.pop().end()

    async def _run(self, process: _Process, request: str, audio: bytes) -> tuple[dict[str, Any], bytearray]:
        """Decode a file on a thread. After an error the process has ended, and so has the thread."""
        decoding = asyncio.ensure_future(asyncio.to_thread(process.decode, request, audio))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(decoding)
        except BaseException:
            process.kill()
            while not decoding.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((decoding,))
            decoding.exception()  # asyncio would log an error that nobody has asked for
            raise

    def _end_idle_later(self) -> None:
        loop = asyncio.get_running_loop()
        if self._ending is not None:
            self._ending.cancel()
        self._ending = loop.call_later(_IDLE_S, self._end_idle)

    def _end_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle:
            loop.run_in_executor(None, self._idle.pop().end)


class _Process:
    """One process, and the pipes to it. It is started when it is used first."""

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._arguments = [str(max_bytes), str(int(timeout_s) + _EXTRA_S)]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False
        self._lock = threading.Lock()

    @property
    def is_used(self) -> bool:
        """Whether it has been started."""
        return self._process is not None

    def decode(self, request: str, audio: bytes) -> tuple[dict[str, Any], bytearray]:
        """Decode a file, on a thread; return the response and its samples.

        Raises EOFError or OSError if the process ends, and CallError if it cannot be started. It has ended
        after any error.
        """
        try:
            if self._process is None:
                self._start()
            assert self._process is not None
            pipe = cast("BinaryIO", self._process.stdin)
            source = cast("BufferedReader", self._process.stdout)
            pipe.write(request.encode() + b"\n")
            pipe.write(audio)
            pipe.flush()
            head = _read_line(source)
            samples = bytearray(4 * head.get("samples", 0))
            if source.readinto(samples) < len(samples):
                raise EOFError
            return head, samples
        except BaseException:
            self.end()
            raise

    def kill(self) -> None:
        """End the process, and with it `decode`."""
        with self._lock:
            self._is_killed = True
            if self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """End the process, and free what belongs to it."""
        self.kill()
        if self._process is None:
            return
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _start(self) -> None:
        # Popen does not fork, which gRPC does not support.
        command = [sys.executable, "-P", "-m", "earmark_server.rpc.decoding_process", *self._arguments]
        try:
            with self._lock:
                if self._is_killed:
                    raise EOFError
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C at a terminal drains the server, whose calls go on
                    # Threads that are not used would count as memory.
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                )
            _read_line(cast("BufferedReader", self._process.stdout))
        except (OSError, EOFError) as error:
            if self._is_killed:
                raise
            exit_code = None if self._process is None else self._process.wait()
            problem = str(error) or f"it ended with {exit_code}"
            log(_LOGGER, logging.ERROR, "decoding process cannot start", problem=problem)
            raise CallError(
                "OVERLOADED", "This server cannot start a process to decode the file. Try again later."
            ) from None


def _read_line(source: BufferedReader) -> dict[str, Any]:
    line = source.readline(LONGEST_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise EOFError
    head: dict[str, Any] = json.loads(line)
    return head
