"""Decodes the files of Spot and Classify in processes of their own.

The files come from strangers, and decoders are large programs in C: a file of 250 bytes can crash one, one
of 3 KB can fill gigabytes, and some print a line for every frame. In a process whose memory and time are
limited, that ends one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from earmark_audio import Notice
from earmark_spotter import AudioError, DecodedRecording, SampleRateError, SpotterError, TooLongError

from earmark_server.rpc.decoding_process import LONGEST_LINE_BYTES, memory_bytes
from earmark_server.rpc.turns import Turns
from earmark_server.status import CallError

if TYPE_CHECKING:
    from io import BufferedReader

    from earmark_spotter import Container

_PROCESSES, _PROCESSES_PER_CLIENT = 2, 1
_IDLE_S = 30.0
"""A process that has not been used for this long is ended. Starting one takes a third of a second."""
_TIMEOUT_S, _TIMEOUT_SHARE = 30.0, 0.1
"""How long decoding may take: this time, and this share of the longest recording."""

_ERRORS: dict[str, type[SpotterError]] = {e.reason: e for e in (SampleRateError, TooLongError)}


class Decoder:
    """Decodes files, two at a time and one of each client. Create and use it on an event loop."""

    def __init__(self, max_seconds: float, turn_timeout_s: float) -> None:
        """`max_seconds`: the longest recording, as for `decode_recording`. `turn_timeout_s`: as for Turns."""
        self._max_seconds = max_seconds
        self._timeout_s = _TIMEOUT_S + _TIMEOUT_SHARE * max_seconds
        self._turns = Turns(_PROCESSES, _PROCESSES_PER_CLIENT, turn_timeout_s)
        self._idle: list[_Process] = []
        self._ending: asyncio.TimerHandle | None = None

    async def decode(
        self, quota_key: str, audio: bytes, container: Container | None, channel: int | None = None
    ) -> DecodedRecording:
        """Decode a file of a client, also one that is truncated: as far as it goes, with a notice.

        `container`, `channel` and errors are as for `decode_recording`. Raises AudioError also for a file
        whose decoding crashes, or takes too much memory or time. If the call is cancelled, its process ends.
        """
        request = json.dumps([len(audio), container and container.value, self._max_seconds, channel])
        async with self._turns.turn(quota_key):
            process = self._idle.pop() if self._idle else self._start()
            decoding = asyncio.ensure_future(asyncio.to_thread(process.decode, request, audio))
            try:
                async with asyncio.timeout(self._timeout_s):
                    head, samples = await asyncio.shield(decoding)
            except BaseException as error:
                process.kill()
                await _ended(decoding)
                process.close()
                if isinstance(error, asyncio.CancelledError | MemoryError):
                    raise
                raise AudioError(
                    "The recording cannot be decoded: it is damaged, or takes too much memory or time. "
                    "Convert it, for example with `ffmpeg -i INPUT out.wav`."
                ) from None
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
            process = self._idle.pop()
            process.kill()
            process.close()

    def _start(self) -> _Process:
        try:
            return _Process(memory_bytes(self._max_seconds))
        except OSError:
            raise CallError(
                "OVERLOADED", "This server cannot start a process to decode the file. Try again later."
            ) from None

    def _end_idle_later(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.get_running_loop().call_later(_IDLE_S, self.close)


class _Process:
    """One process, and the pipes to it."""

    def __init__(self, max_bytes: int) -> None:
        # Not by asyncio: uvloop forks, which gRPC does not support. Popen does not fork, and returns at once.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "earmark_server.rpc.decoding_process", str(max_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at a terminal drains the server, whose calls go on
            # Threads that are not used would count as memory.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def decode(self, request: str, audio: bytes) -> tuple[dict[str, Any], bytearray]:
        """Decode a file, on a thread; return the response and its samples. EOFError or OSError if it ends."""
        pipe, source = cast("BinaryIO", self._process.stdin), cast("BufferedReader", self._process.stdout)
        pipe.write(request.encode() + b"\n")
        pipe.write(audio)
        pipe.flush()
        line = source.readline(LONGEST_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError
        head: dict[str, Any] = json.loads(line)
        samples = bytearray(4 * head.get("samples", 0))
        if source.readinto(samples) < len(samples):
            raise EOFError
        return head, samples

    def kill(self) -> None:
        """End the process, and with it `decode`."""
        self._process.kill()

    def close(self) -> None:
        """Free what belongs to a process that was ended, once `decode` has ended."""
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


async def _ended(decoding: asyncio.Future[Any]) -> None:
    """Wait until a thread has ended, also if the call is cancelled."""
    while not decoding.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((decoding,))
    decoding.exception()  # it is known that it has none to report
