"""Spot keywords in a recording with a server, and save its response and its latency.

    python measure_inference.py HOST:PORT RECORDING WORD,WORD,... OUT

The words are those spoken in the recording, in their order. The server must detect at least 75% of those
that are keywords of its model, in this order; otherwise the script prints the difference and exits with 1.
It writes response.json and inference_metrics.json (with client-side latencies in milliseconds) to the
folder OUT. It needs only the client to be installed.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from check_spotting import latency_ms
from earmark_client import SyncClient

MIN_RECALL = 0.75


def common_length(spoken: list[str], detected: list[str]) -> int:
    """Return the length of the longest common subsequence: the words that were detected in their order."""
    lengths = [0] * (len(detected) + 1)
    for word in spoken:
        before = lengths
        lengths = [0]
        for place, other in enumerate(detected):
            lengths.append(before[place] + 1 if word == other else max(before[place + 1], lengths[place]))
    return lengths[-1]


def main() -> None:
    """Run the script."""
    address, recording, words, out = sys.argv[1], sys.argv[2], sys.argv[3].split(","), Path(sys.argv[4])
    with SyncClient(address) as client:
        model = client.list_models()[0]
        begin_s = time.perf_counter()
        response = client.spot(recording)
        spot_ms = 1000 * (time.perf_counter() - begin_s)
        latency = latency_ms(client)
    spoken = [word for word in words if word in {one.keyword for one in model.keywords}]
    detected = [one.keyword for one in response.detections]
    correct = common_length(spoken, detected)
    metrics = {
        "model": model.name,
        "model_version": model.version,
        "said": spoken,
        "detected": detected,
        "right": correct,
        "audio_s": response.audio_s,
        "spot_ms": round(spot_ms, 3),
        "classify_one_second": {name: round(value, 3) for name, value in latency.items()},
    }
    (out / "response.json").write_text(json.dumps(asdict(response), indent=1) + "\n")
    (out / "inference_metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(json.dumps(metrics))
    if not spoken:
        sys.exit(f"{model.name} has none of the keywords {', '.join(words)}: choose others (WORDS)")
    if correct < MIN_RECALL * len(spoken):
        sys.exit(f"spoken: {' '.join(spoken)}; detected: {' '.join(detected)}")


if __name__ == "__main__":
    main()
