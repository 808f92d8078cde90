"""The stream beside: real speech in real time, while somebody else does his worst to the server.

    python tests/fuzz/neighbour.py HOST:PORT

It says its words over and over, until its standard input has a line, or ends; each line asks for the delays
since the line before, as a JSON list in milliseconds: from when a step of 100 ms was due to when its
scores came. At the end it says how many keywords it heard, and how many the listener hears without a server.
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
LEAST_CHUNKS = 40
"""Two of its words, however soon it is to leave."""


class Neighbour:
    """One stream."""

    def __init__(self) -> None:
        self.delays_ms: list[float] = []
        self.said: list[bytes] = []
        self.heard: list[tuple[str, str]] = []
        self.leaves = threading.Event()
        self._begun_s = 0.0

    def run(self, address: str) -> None:
        """Stream until it leaves."""
        with SyncClient(address) as client:
            for event in client.stream(self._audio(), sample_rate_hz=RATE_HZ, score_interval_s=CHUNK_S):
                if isinstance(event, Scores):
                    self.delays_ms.append((time.monotonic() - self._begun_s - event.offset_s) * 1000)
                elif isinstance(event, Detection):
                    self.heard.append((event.keyword, event.id))

    def _audio(self) -> Iterator[bytes]:
        with Recording(DEMO, block_s=CHUNK_S) as recording:
            assert recording.sample_rate_hz == RATE_HZ
            chunks = [bytes(chunk) for chunk in recording]
        chunks = [chunk for chunk in chunks if len(chunk) == round(2 * RATE_HZ * CHUNK_S)]
        self._begun_s = time.monotonic()
        while not self.leaves.is_set() or len(self.said) < LEAST_CHUNKS:
            chunk = chunks[len(self.said) % len(chunks)]
            due_s = self._begun_s + (len(self.said) + 1) * CHUNK_S
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.said.append(chunk)
            yield chunk

    def expected(self) -> list[tuple[str, str]]:
        """Give what is in the audio that was sent."""
        spotter = Spotter(SpotterModel.load(), audio_format=AudioFormat(Encoding.LINEAR16, RATE_HZ))
        found = spotter.feed(b"".join(self.said)) + spotter.flush()
        return [(one.keyword, one.id) for one in found]


def main() -> None:
    neighbour = Neighbour()
    streaming = threading.Thread(target=neighbour.run, args=(sys.argv[1],))
    streaming.start()
    for _ in sys.stdin:
        delays_ms, neighbour.delays_ms = neighbour.delays_ms, []
        print(json.dumps(delays_ms), flush=True)
    neighbour.leaves.set()
    streaming.join()
    expected = neighbour.expected()
    print(
        json.dumps(
            {"heard": len(neighbour.heard), "expected": len(expected), "same": neighbour.heard == expected}
        )
    )


if __name__ == "__main__":
    main()
