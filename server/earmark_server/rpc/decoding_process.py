"""The process that decodes the files of strangers, one after the other: `python -m` this module.

Its memory is limited, what a decoder prints goes nowhere, and when it crashes, one call ends. See decoder.py.

A request on standard input is a line of JSON, `[bytes, container, max_seconds, channel]`, and so many bytes
of a file. The response is a line of JSON, `{"reason", "message"}` or `{"samples", "sample_rate_hz",
"channels", "notices"}`, and so many samples, float32 in the machine's order of bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from earmark_spotter import AudioError, Container, DecodedRecording, SpotterError, decode_recording

LONGEST_LINE_BYTES = 1 << 16
_BASE_BYTES = 256 << 20
_DENSEST_BYTES_PER_S = 4 * 96_000
_COPIES = 3


def memory_bytes(max_seconds: float) -> int:
    """Return what the process may allocate, for recordings of a length."""
    return _BASE_BYTES + int(_COPIES * _DENSEST_BYTES_PER_S * max_seconds)


def serve(requests: BinaryIO, responses: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while line := requests.readline(LONGEST_LINE_BYTES):
        size, container, max_seconds, channel = json.loads(line)
        head, samples = _decode(requests.read(size), container, max_seconds, channel)
        responses.write(json.dumps(head).encode() + b"\n")
        responses.write(samples)
        responses.flush()


def _decode(
    audio: bytes, container: str | None, max_seconds: float, channel: int | None
) -> tuple[dict[str, Any], memoryview | bytes]:
    try:
        decoded: DecodedRecording = decode_recording(
            audio,
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

        resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


def _main() -> None:
    _limit_memory(int(sys.argv[1]))
    # Decoders print to standard output and standard error.
    responses = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    serve(sys.stdin.buffer, responses)


if __name__ == "__main__":
    _main()
