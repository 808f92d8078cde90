"""Check a server's detections in recordings with known words, and measure its latency.

    python check_spotting.py HOST:PORT [SPEECH_COMMANDS]

In the bundled recording, the server must detect all keywords and nothing else. In up to 100 validation
clips of the folder SPEECH_COMMANDS, it must detect the keyword in at least 80%. Otherwise the script prints
the difference and exits with 1. It needs only the client to be installed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from importlib import resources
from pathlib import Path

import soundfile
from earmark_client import SyncClient

MIN_RECALL = 0.8
RATE_HZ = 16_000


def check_demo(client: SyncClient, keywords: set[str]) -> None:
    """Check the detections in the bundled recording."""
    samples = resources.files("earmark_cli") / "samples"
    spoken = [one["keyword"] for one in json.loads((samples / "demo.json").read_text())["said"]]
    expected = [keyword for keyword in spoken if keyword in keywords]
    detected = [one.keyword for one in client.spot(str(samples / "demo.flac")).detections]
    if detected != expected:
        sys.exit(f"bundled recording: expected {', '.join(expected)}, but detected {', '.join(detected)}")
    print(f"bundled recording: all {len(detected)} keywords detected, no false alarm")


def check_clips(client: SyncClient, keywords: set[str], folder: Path) -> None:
    """Check the recall on clips of real speech."""
    listed = [Path(line) for line in (folder / "validation_list.txt").read_text().split()]
    wanted = [folder / one.with_suffix("") for one in listed if one.parent.name in keywords]
    # The list has the suffix .wav, but the recordings may have another format.
    sample = wanted[:: max(1, len(wanted) // 100)][:100]
    clips = [found for one in sample for found in one.parent.glob(f"{one.name}.*")]
    if not clips:
        sys.exit(f"{folder} has no validation clips of the keywords {', '.join(sorted(keywords))}")
    detected = sum(
        clip.parent.name in {one.keyword for one in client.spot(str(clip)).detections} for clip in clips
    )
    print(f"real speech: keyword detected in {detected} of {len(clips)} clips")
    if detected < MIN_RECALL * len(clips):
        sys.exit(f"recall is below {MIN_RECALL:.0%}")


def latency_ms(client: SyncClient, calls: int = 200) -> dict[str, float]:
    """Classify one second of audio `calls` times; return the latency and the server's processing time."""
    flac = resources.files("earmark_cli") / "samples" / "demo.flac"
    second, _ = soundfile.read(str(flac), frames=RATE_HZ, start=RATE_HZ // 2, dtype="int16")
    latencies_ms, processing_ms = [], []
    for _ in range(calls):
        begin_s = time.perf_counter()
        answer = client.classify(second, sample_rate_hz=RATE_HZ)
        latencies_ms.append(1000 * (time.perf_counter() - begin_s))
        processing_ms.append(1000 * answer.processing_s)
    return {
        "calls": calls,
        "p50_ms": statistics.median(latencies_ms),
        "p95_ms": statistics.quantiles(latencies_ms, n=20)[-1],
        "listening_p50_ms": statistics.median(processing_ms),
    }


def main() -> None:
    """Run the script."""
    with SyncClient(sys.argv[1]) as client:
        keywords = {one.keyword for one in client.list_models()[0].keywords}
        check_demo(client, keywords)
        if len(sys.argv) > 2:
            check_clips(client, keywords, Path(sys.argv[2]))
        latency = latency_ms(client)
    print(
        f"latency of Classify for 1 s of audio: p50 {latency['p50_ms']:.1f} ms, "
        f"p95 {latency['p95_ms']:.1f} ms ({latency['calls']} calls)"
    )
    print(f"of which processing on the server: p50 {latency['listening_p50_ms']:.1f} ms")


if __name__ == "__main__":
    main()
