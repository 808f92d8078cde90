"""The process that decodes the files of strangers, one after the other: `python -m` this module.

Its memory is limited, what a decoder prints goes nowhere, and when it crashes, one call ends. See decoder.py.

Its arguments are what it may allocate, in bytes, and the seconds for one file. It first writes the line
`{}`. A request on standard input is a line of JSON, `[bytes, container, max_seconds, channel]`, and that many
bytes of a file. The response is a line of JSON, `{"reason", "message"}` or `{"samples", "sample_rate_hz",
"channels", "notices"}`, and that many samples, float32 in the machine's order of bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from earmark_spotter import AudioError, Container, DecodedRecording, SpotterError, decode_recording
from earmark_spotter.recording import DENSEST_HZ

LONGEST_LINE_BYTES = 1 << 16
_BASE_BYTES = 256 << 20
_SAMPLE_BYTES = 4
_COPIES = 3


def memory_bytes(max_seconds: float, max_message_bytes: int) -> int:
    """Return what the process may allocate, for recordings of a length, in messages of a length."""
    return _BASE_BYTES + max_message_bytes + int(_COPIES * _SAMPLE_BYTES * DENSEST_HZ * max_seconds)


def serve(requests: BinaryIO, responses: BinaryIO, limit_s: int) -> None:
    """Answer requests until there are no more. The process ends if one takes longer than `limit_s`."""
    responses.write(b"{}\n")
    responses.flush()
    while line := requests.readline(LONGEST_LINE_BYTES):
        # The server ends this process sooner, unless it is gone itself.
        if sys.platform != "win32":
            signal.alarm(limit_s)
        head, samples = _decode(requests, *json.loads(line))
        responses.write(json.dumps(head).encode() + b"\n")
        responses.write(samples)
        responses.flush()
        if sys.platform != "win32":
            signal.alarm(0)
        del head, samples  # they are large


def _decode(
    requests: BinaryIO, size: int, container: str | None, max_seconds: float, channel: int | None
) -> tuple[dict[str, Any], memoryview | bytes]:
    try:
        decoded: DecodedRecording = decode_recording(
            requests.read(size),
            max_seconds=max_seconds,
            container=None if container is None else Container(container),
            channel=channel,
        )
    except SpotterError as error:
        return {"reason": error.reason, "message": str(error)}, b""
    except MemoryError:
        message = "Decoding the recording takes too much memory: it is damaged, or its header is wrong."
        return {"reason": AudioError.reason, "message": message}, b""
    return {
        "samples": len(decoded.samples),
        "sample_rate_hz": decoded.sample_rate_hz,
        "channels": decoded.channels,
        "notices": [[notice.reason, notice.message] for notice in decoded.notices],
    }, decoded.samples.data.cast("B")


def _limit_memory(max_bytes: int) -> None:
    """Limit this process, and let it be the first one that a system without memory ends."""
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = max_bytes if hard == resource.RLIM_INFINITY else min(max_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal drains the server, whose calls go on
    max_bytes, limit_s = map(int, sys.argv[1:])
    _limit_memory(max_bytes)
    # Decoders print to standard output and standard error.
    responses = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    serve(sys.stdin.buffer, responses, limit_s)


if __name__ == "__main__":
    _main()
