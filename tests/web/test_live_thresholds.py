"""Thresholds that change while a word is spoken, or shortly after it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_client import Client, Detection
from earmark_server.embedded import serve_in_thread
from earmark_web.live_thresholds import AdjustableStream, ChangeThresholds, EndOfAudio
from support import tiny_model
from support.deadlines import DEADLINE_S
from support.environment import ADMIT_ALWAYS
from support.paths import DEMO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

RATE_HZ = 16_000
CHUNK = RATE_HZ // 10


@pytest.fixture(scope="module")
def bundled() -> Iterator[str]:
    """The address of a server with the bundled model."""
    with serve_in_thread(**ADMIT_ALWAYS) as address:
        yield address


def detections(
    address: str,
    samples: np.ndarray,
    changes: Sequence[tuple[float, Mapping[str, float]]] = (),
    *,
    after_a_detection: bool = False,
) -> list[Detection]:
    """Stream samples.

    `changes`: the new thresholds, with the second at which each begins. `after_a_detection`: a change waits
    until a detection has been sent.
    """
    found: list[Detection] = []
    sent = asyncio.Event()

    async def page_messages() -> AsyncIterator[bytes | ChangeThresholds | EndOfAudio]:
        at = 0
        for change_s, thresholds in [*changes, (len(samples) / RATE_HZ, None)]:
            until = round(change_s * RATE_HZ)
            for start in range(at, until, CHUNK):
                yield samples[start : min(start + CHUNK, until)].tobytes()
            at = until
            if thresholds is None:
                yield EndOfAudio()
                return
            if after_a_detection:
                await sent.wait()
            yield ChangeThresholds(thresholds)

    async def scenario() -> None:
        messages = page_messages()
        async with Client(address) as client, asyncio.timeout(DEADLINE_S):
            stream = AdjustableStream(
                client, lambda: anext(messages), sample_rate_hz=RATE_HZ, models=[""], with_scores=False
            )
            async for event in stream.events({}):
                if isinstance(event, Detection):
                    found.append(event)
                    sent.set()

    asyncio.run(scenario())
    return found


@pytest.mark.parametrize(
    ("begin_s", "end_s", "changes_s"),
    [
        pytest.param(1.6, 3.4, [0.61, 0.73, 0.85, 0.97, 1.09], id="yes"),
        pytest.param(19.0, 20.5, [0.4, 0.45, 0.5, 0.6, 0.9], id="four"),
    ],
)
def test_a_change_during_a_word_changes_nothing_else(
    bundled: str, begin_s: float, end_s: float, changes_s: list[float]
) -> None:
    demo, _ = soundfile.read(DEMO, dtype="int16")
    samples = demo[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]
    unchanged = detections(bundled, samples)
    assert unchanged
    same = {"stop": 0.9}  # it is not spoken here
    for each in [*([change_s] for change_s in changes_s), changes_s]:
        changed = detections(bundled, samples, [(change_s, same) for change_s in each])
        assert [one.keyword for one in changed] == [one.keyword for one in unchanged], each
        for name in ("start_s", "end_s"):
            expected = [getattr(one, name) for one in unchanged]
            assert [getattr(one, name) for one in changed] == pytest.approx(expected, abs=0.05), each


def test_a_word_that_was_sent_is_not_detected_again_as_another_one(address: str) -> None:
    both = np.zeros(2 * RATE_HZ, np.float32)
    both[8000:8960] = tiny_model.tone("low", amplitude=0.3) + tiny_model.tone("mid", amplitude=0.28)
    samples = (both * 32768).astype("<i2")
    only_mid = {"low": 0.99, "mid": 0.3}
    before = detections(address, samples, [(0.1, only_mid)])
    assert [one.keyword for one in before] == ["mid"]
    after = detections(address, samples, [(0.9, only_mid)], after_a_detection=True)
    assert [one.keyword for one in after] == ["low"]


def test_a_word_that_is_not_decided_yet_is_decided_with_the_new_thresholds(address: str) -> None:
    samples = (np.pad(tiny_model.tone("low", amplitude=0.03), (8000, RATE_HZ)) * 32768).astype("<i2")
    assert [one.keyword for one in detections(address, samples, [(0.56, {"mid": 0.9})])] == ["low"]
    assert detections(address, samples, [(0.56, {"low": 0.95})]) == []
