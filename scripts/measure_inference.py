"""Ask a server for the keywords in a recording, and keep what it answered and how long it took.

    python measure_inference.py HOST:PORT RECORDING WORD,WORD,... OUT

Of the words, which are those said in the recording, three in four that the model knows must be marked, in
their order. OUT gets response.json, the answer, and inference_metrics.json, latencies in milliseconds as a
client sees them. Exits with 1 and a sentence otherwise. Needs the client.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from difflib import SequenceMatcher
from pathlib import Path

from check_spotting import latency_ms
from earmark_client import SyncClient

SHARE = 0.75


def main() -> None:
    """Run the script."""
    address, recording, words, out = sys.argv[1], sys.argv[2], sys.argv[3].split(","), Path(sys.argv[4])
    with SyncClient(address) as client:
        model = client.list_models()[0]
        begun_s = time.perf_counter()
        response = client.spot(recording)
        spot_ms = 1000 * (time.perf_counter() - begun_s)
        latency = latency_ms(client)
    said = [word for word in words if word in {one.keyword for one in model.keywords}]
    heard = [one.keyword for one in response.detections]
    right = sum(run.size for run in SequenceMatcher(None, said, heard).get_matching_blocks())
    metrics = {
        "model": model.name,
        "model_version": model.version,
        "said": said,
        "heard": heard,
        "right": right,
        "audio_s": response.audio_s,
        "spot_ms": round(spot_ms, 3),
        "classify_one_second": {name: round(value, 3) for name, value in latency.items()},
    }
    (out / "response.json").write_text(json.dumps(asdict(response), indent=1) + "\n")
    (out / "inference_metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(json.dumps(metrics))
    if not said:
        sys.exit(f"{model.name} knows none of {', '.join(words)}: say others (WORDS).")
    if right < SHARE * len(said):
        sys.exit(f"Said was {' '.join(said)}, but heard {' '.join(heard)}.")


if __name__ == "__main__":
    main()
