"""The canary stream: real speech in real time, while the fuzzer sends malformed input to the same server.

    python tests/fuzz/canary.py HOST:PORT

Streams the demo recording in a loop until standard input ends. Each line on standard input requests the
latencies since the previous line, as a JSON list in milliseconds: from the time at which a chunk of 100 ms
was due to the receipt of its scores. At the end it prints a JSON object with the number of received
detections, the number that a Spotter detects in the same audio, and whether both are the same.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client import Detection, Recording, Scores, SyncClient
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = Path(__file__).resolve().parents[2] / "client/earmark_cli/samples/demo.flac"
RATE_HZ, CHUNK_S = 16_000, 0.1
MIN_CHUNKS = 40
"""At least two keywords, even if standard input ends early."""


class Canary:
    """The stream, its audio and its detections."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.sent: list[bytes] = []
        self.received: list[tuple[str, str]] = []
        self.stopping = threading.Event()
        self._begin_s = 0.0

    def run(self, address: str) -> None:
        """Stream until `stopping` is set."""
        with SyncClient(address) as client:
            for event in client.stream(self._audio(), sample_rate_hz=RATE_HZ, score_interval_s=CHUNK_S):
                if isinstance(event, Scores):
                    self.latencies_ms.append((time.monotonic() - self._begin_s - event.offset_s) * 1000)
                elif isinstance(event, Detection):
                    self.received.append((event.keyword, event.id))

    def _audio(self) -> Iterator[bytes]:
        with Recording(DEMO, block_s=CHUNK_S) as recording:
            assert recording.sample_rate_hz == RATE_HZ
            chunks = [bytes(chunk) for chunk in recording]
        chunks = [chunk for chunk in chunks if len(chunk) == round(2 * RATE_HZ * CHUNK_S)]
        self._begin_s = time.monotonic()
        while not self.stopping.is_set() or len(self.sent) < MIN_CHUNKS:
            chunk = chunks[len(self.sent) % len(chunks)]
            due_s = self._begin_s + (len(self.sent) + 1) * CHUNK_S
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.sent.append(chunk)
            yield chunk

    def expected(self) -> list[tuple[str, str]]:
        """Return the detections of a Spotter in the audio that was sent."""
        spotter = Spotter(SpotterModel.load(), audio_format=AudioFormat(Encoding.LINEAR16, RATE_HZ))
        detections = spotter.feed(b"".join(self.sent)) + spotter.flush()
        return [(one.keyword, one.id) for one in detections]


def main() -> None:
    canary = Canary()
    streaming = threading.Thread(target=canary.run, args=(sys.argv[1],))
    streaming.start()
    for _ in sys.stdin:
        latencies_ms, canary.latencies_ms = canary.latencies_ms, []
        print(json.dumps(latencies_ms), flush=True)
    canary.stopping.set()
    streaming.join()
    expected = canary.expected()
    print(
        json.dumps(
            {
                "received": len(canary.received),
                "expected": len(expected),
                "same": canary.received == expected,
            }
        )
    )


if __name__ == "__main__":
    main()
