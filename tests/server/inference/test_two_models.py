"""A server with two models: each stream selects one, and detects only the keywords of that model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from support import tiny_model
from support.server_rig import WORDS, chunks, collect, config, detections, pcm, run, serving

if TYPE_CHECKING:
    from pathlib import Path

OTHER_NAMES = {"low": "bass", "mid": "tenor", "high": "treble"}


def other_model(path: Path) -> Path:
    """Build the tiny model under another name, with other keywords for the same tones, except the highest."""
    document = tiny_model.metadata()
    document["name"] = "choir"
    document["labels"] = [OTHER_NAMES.get(label, label) for label in document["labels"]]
    document["keywords"] = {OTHER_NAMES[k]: v for k, v in document["keywords"].items() if k != "high"}
    return tiny_model.build(path, document=document)


def test_concurrent_streams_of_two_models_detect_their_own_keywords(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    spoken = [name for _, name in WORDS]
    expected = {"tiny": spoken, "choir": [OTHER_NAMES[name] for name in spoken if name != "high"]}

    async def scenario() -> None:
        async with serving((tiny_model_path, other_model(tmp_path / "choir.onnx"))) as rig:
            models = [name for _ in range(6) for name in expected]
            # Chunks of different lengths, so that the steps of the streams arrive in every order.
            calls = [
                rig.stream(config(model=name), *chunks(pcm(), 700 + 400 * i)) for i, name in enumerate(models)
            ]
            streamed = await asyncio.gather(*map(collect, calls))
            for name, events in zip(models, streamed, strict=True):
                assert events[0].started.model == name
                assert [one.keyword for one in detections(events)] == expected[name]

    run(scenario)
