"""Ask a server for the keywords in recordings whose words are known, and time its answers.

    python check_spotting.py HOST:PORT [SPEECH_COMMANDS]

The bundled recording's keywords must be marked, all and no others; of up to 100 validation clips of the
folder, laid out as Speech Commands, four in five. Exits with 1 and a sentence otherwise. Needs the client.
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

SHARE = 0.8
RATE_HZ = 16_000


def check_demo(client: SyncClient, keywords: set[str]) -> None:
    """Mark the bundled recording."""
    samples = resources.files("earmark_cli") / "samples"
    said = [one["keyword"] for one in json.loads((samples / "demo.json").read_text())["said"]]
    expected = [keyword for keyword in said if keyword in keywords]
    heard = [one.keyword for one in client.spot(str(samples / "demo.flac")).detections]
    if heard != expected:
        sys.exit(f"In the bundled recording {', '.join(expected)} is said, but {', '.join(heard)} was heard.")
    print(f"bundled recording: all {len(heard)} keywords, and no other")


def check_clips(client: SyncClient, keywords: set[str], folder: Path) -> None:
    """Mark clips of people."""
    listed = [Path(line) for line in (folder / "validation_list.txt").read_text().split()]
    wanted = [folder / one.with_suffix("") for one in listed if one.parent.name in keywords]
    # The list says .wav; the recordings may be in another form.
    some = wanted[:: max(1, len(wanted) // 100)][:100]
    clips = [found for one in some for found in one.parent.glob(f"{one.name}.*")]
    if not clips:
        sys.exit(f"{folder} has no validation clips of these keywords: {', '.join(sorted(keywords))}.")
    right = sum(
        clip.parent.name in {one.keyword for one in client.spot(str(clip)).detections} for clip in clips
    )
    print(f"real speech: the word found in {right} of {len(clips)} clips")
    if right < SHARE * len(clips):
        sys.exit(f"That is fewer than {SHARE:.0%} of them.")


def latency_ms(client: SyncClient, calls: int = 200) -> dict[str, float]:
    """Classify one second of audio many times: how long a client waits, how long the server listens."""
    flac = resources.files("earmark_cli") / "samples" / "demo.flac"
    second, _ = soundfile.read(str(flac), frames=RATE_HZ, start=RATE_HZ // 2, dtype="int16")
    took_ms, model_ms = [], []
    for _ in range(calls):
        begun_s = time.perf_counter()
        answer = client.classify(second, sample_rate_hz=RATE_HZ)
        took_ms.append(1000 * (time.perf_counter() - begun_s))
        model_ms.append(1000 * answer.processing_s)
    return {
        "calls": calls,
        "p50_ms": statistics.median(took_ms),
        "p95_ms": statistics.quantiles(took_ms, n=20)[-1],
        "listening_p50_ms": statistics.median(model_ms),
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
        "latency: one second classified in {p50_ms:.1f} ms, p95 {p95_ms:.1f} ms ({calls} calls)".format(
            **latency
        )
    )
    print("         of which the server spent {listening_p50_ms:.1f} ms listening".format(**latency))


if __name__ == "__main__":
    main()
