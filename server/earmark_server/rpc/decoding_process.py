"""Decodes files with FFmpeg in a separate process, whose memory and time are limited.

The header of a video container of 600 bytes can make FFmpeg fill gigabytes before it has decoded anything. In
this process that ends one call. The formats that libsndfile decodes need no process: their structure is read
by Earmark's own code, in proportion to their size.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from earmark_audio import Notice
from earmark_spotter import (
    AudioError,
    Container,
    DecodedRecording,
    SampleRateError,
    SpotterError,
    TooLongError,
    decode_recording,
)

MEMORY_BYTES = 512 << 20
"""What the process may allocate. The longest recording that a call may have takes 230 MB."""
TIMEOUT_S = 60
_ERRORS: dict[str, type[SpotterError]] = {e.reason: e for e in (AudioError, SampleRateError, TooLongError)}


def decode_in_process(
    audio: bytes, container: Container | None, max_seconds: float, channel: int | None
) -> DecodedRecording:
    """Decode a file as `decode_recording` does, with the same errors, in a process of its own.

    Raises AudioError if the process needs more memory or time than it may have.
    """
    options = json.dumps([container and container.value, max_seconds, channel])
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "earmark_server.rpc.decoding_process", options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            output, _ = process.communicate(audio, TIMEOUT_S)
        except subprocess.TimeoutExpired:
            output = b""
        finally:
            process.kill()
    head, _, samples = output.partition(b"\n")
    if not head:
        raise AudioError(
            "Decoding the recording takes too much memory or time: it is damaged. Convert it, for example "
            "with `ffmpeg -i INPUT out.wav`."
        )
    result: dict[str, Any] = json.loads(head)
    if "reason" in result:
        raise _ERRORS.get(result["reason"], AudioError)(result["message"])
    return DecodedRecording(
        np.frombuffer(samples, np.float32),
        result["sample_rate_hz"],
        result["channels"],
        tuple(Notice(*notice) for notice in result["notices"]),
    )


def _limit() -> None:
    """Limit this process, and let it be the first one that a system without memory ends."""
    if sys.platform != "linux":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT_S, TIMEOUT_S))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _main(options: str) -> None:
    _limit()
    container, max_seconds, channel = json.loads(options)
    output = sys.stdout.buffer
    try:
        decoded = decode_recording(
            sys.stdin.buffer.read(),
            max_seconds=max_seconds,
            container=container and Container(container),
            channel=channel,
        )
    except SpotterError as error:
        output.write(json.dumps({"reason": error.reason, "message": str(error)}).encode() + b"\n")
        return
    head = {
        "sample_rate_hz": decoded.sample_rate_hz,
        "channels": decoded.channels,
        "notices": [[notice.reason, notice.message] for notice in decoded.notices],
    }
    output.write(json.dumps(head).encode() + b"\n")
    output.write(decoded.samples.tobytes())


if __name__ == "__main__":
    _main(sys.argv[1])
