"""Streams with several models survive servers that are killed, with the events of an undisturbed stream."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
from earmark_client import Detection, Resumed
from support import tiny_model, tiny_models
from support.deadlines import wait_until
from support.observed_streams import (
    PausedStream,
    run,
    run_in_background,
    run_undisturbed,
)
from support.restartable_server import RestartableServer

if TYPE_CHECKING:
    from pathlib import Path

    from support.observed_streams import Stream

NAMES = ["tiny", "slow", "narrow"]


def places(stream: Stream) -> list[tuple[str, float, float]]:
    return [(one.id, one.start_s, one.end_s) for one in stream.events if isinstance(one, Detection)]


@pytest.mark.slow
def test_servers_are_killed_and_restarted(tmp_path: Path) -> None:
    rng = random.Random(7)
    words = [(0.3 + 0.45 * i, word) for i, word in enumerate(["low", "mid", "high"] * 20)]
    samples = (tiny_model.recording(words, 28.0, noise=1e-3) * 32767).astype("<i2")
    chunks = [samples[start : start + 1600].tobytes() for start in range(0, len(samples), 1600)]
    paths = [tiny_models.build(tmp_path, name) for name in NAMES]
    with RestartableServer(paths[0], *(f"--model={path}" for path in paths[1:])) as server:
        expected = run_undisturbed(server.address, chunks, models=NAMES)
        streams = [PausedStream(chunks, 10) for _ in range(3)]
        total = len(expected.events)
        moments = sorted(rng.randrange(3, total * 9 // 10) for _ in range(3))

        def sabotage() -> None:
            for moment in moments:
                wait_until(
                    partial(lambda count: any(len(one.events) >= count for one in streams), moment),
                    f"{moment} events",
                )
                server.kill()
                server.start()
            for stream in streams:
                stream.may_end.set()

        saboteur = run_in_background(sabotage)
        run("async", server.address, streams, models=NAMES)
        saboteur.result()
    for stream in streams:
        # Progress may come a moment sooner or later.
        assert places(stream) == places(expected)
        assert {one.partition("/")[0] for one, *_ in places(stream)} == set(NAMES)
        assert stream.events[-1] == expected.events[-1]
        assert stream.of(Resumed)
