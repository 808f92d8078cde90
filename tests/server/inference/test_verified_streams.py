"""A server runs the verifier of a model for many streams at once, with the final scores of the library."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from earmark_client import Detection, Encoding, SyncClient
from earmark_server.embedded import serve_in_thread
from earmark_spotter import AudioFormat, Spotter, SpotterModel
from earmark_spotter import Encoding as SpotterEncoding
from support import tiny_model
from support.environment import ADMIT_ALWAYS

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = tiny_model.RATE_HZ
# The second word of a pair has a final score below its threshold.
WORDS = [(0.3, "low"), (0.62, "mid"), (2.0, "high"), (2.9, "low"), (3.25, "high"), (4.6, "mid")]
AUDIO = tiny_model.recording(WORDS, 6, noise=0.001)


@pytest.mark.slow
def test_many_streams_have_the_final_scores_of_the_library(tmp_path: Path) -> None:
    path = tiny_model.build(
        tmp_path / "verified.onnx",
        document=tiny_model.VERIFIED_METADATA,
        verifier=tiny_model.verifier(),
    )
    spotter = Spotter(SpotterModel.load(path), audio_format=AudioFormat(SpotterEncoding.FLOAT32, RATE_HZ))
    expected = [
        (d.keyword, pytest.approx(d.confidence, abs=1e-6)) for d in spotter.feed(AUDIO) + spotter.flush()
    ]
    assert [keyword for keyword, _ in expected] == ["low", "high", "low", "mid"]

    with serve_in_thread(model=(str(path),), **ADMIT_ALWAYS) as address, SyncClient(address) as client:

        def stream(chunk_samples: int) -> list[tuple[str, float]]:
            chunks = [AUDIO[i : i + chunk_samples] for i in range(0, len(AUDIO), chunk_samples)]
            events = client.stream(chunks, sample_rate_hz=RATE_HZ, encoding=Encoding.FLOAT32)
            return [(e.keyword, e.confidence) for e in events if isinstance(e, Detection)]

        with ThreadPoolExecutor(12) as pool:
            for found in pool.map(stream, [160, 501, 800, 1600, 4001, 16_000] * 4):
                assert found == expected
