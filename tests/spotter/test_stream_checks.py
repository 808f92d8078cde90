"""Properties of the checks of a stream's audio: chunks and resumed streams change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from earmark_spotter import AudioFormat, Encoding
from earmark_spotter.stream_checks import ChecksState, StreamChecks
from hypothesis import given
from hypothesis import strategies as st

FORMAT = AudioFormat(Encoding.LINEAR16, 8000, 2)
SECOND_BYTES = 8000 * FORMAT.frame_bytes
RNG = np.random.default_rng(1)
SPEECH = np.cumsum(RNG.normal(0, 300, (8000, 2)), axis=0) * 0.2 + RNG.normal(0, 30, (8000, 2))


def linear16(samples: np.ndarray, kind: str = "<i2") -> bytes:
    return np.clip(samples, -32768, 32767).astype(kind).tobytes()


# One second each.
PARTS = {
    "speech": linear16(SPEECH),
    "zeros": bytes(SECOND_BYTES),
    "many zeros": bytes(40 * SECOND_BYTES),
    "clipped": linear16(np.sign(SPEECH + 0.5) * 32767),
    "cancelling": linear16(np.stack([SPEECH[:, 0], -SPEECH[:, 0]], 1)),
    "big-endian": linear16(SPEECH * 4, ">i2"),
    "short": linear16(SPEECH[:777]),
    "split": linear16(SPEECH[:777])[:-1],
}


def found(checks: StreamChecks) -> list[tuple[int, str]]:
    return [(position, notice.reason) for position, notice in checks.found]


@pytest.mark.slow
@given(
    parts=st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=6),
    pause_s=st.sampled_from([None, 1.0, 0.3, 100.0]),
    sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=5),
)
def test_neither_chunks_nor_a_resumed_stream_change_what_is_found(
    parts: list[str], pause_s: float | None, sizes: list[int]
) -> None:
    data = b"".join(PARTS[part] for part in parts)
    data = data[: len(data) // FORMAT.frame_bytes * FORMAT.frame_bytes]
    pause = None if pause_s is None else round(pause_s * 8000)
    whole = StreamChecks(FORMAT)
    whole.add(data)
    if pause is not None:
        whole.add_silence(pause)
        whole.add(data)
    whole.finish()

    chunked = StreamChecks(FORMAT)
    states: dict[int, ChecksState] = {}
    position = 0
    for block in (data,) if pause is None else (data, None, data):
        if block is None:
            chunked.add_silence(pause)
            position += pause * FORMAT.frame_bytes
            continue
        start, turn = 0, 0
        while start < len(block):
            # Up to the next second, whose state a token would have.
            size = min(sizes[turn % len(sizes)], SECOND_BYTES - position % SECOND_BYTES)
            chunked.add(block[start : start + size])
            position += len(block[start : start + size])
            start, turn = start + size, turn + 1
            if position % SECOND_BYTES == 0:
                states[position // SECOND_BYTES] = chunked.state_at(position // SECOND_BYTES)
    chunked.finish()
    assert found(chunked) == found(whole)

    if pause is None:
        for second, state in states.items():
            resumed = StreamChecks(FORMAT, second, state)
            resumed.add(data[second * SECOND_BYTES :])
            resumed.finish()
            assert found(resumed) == [one for one in found(whole) if one[0] > second * 8000]


@pytest.mark.parametrize("state", [ChecksState(None), ChecksState(None, 59 * SECOND_BYTES), ChecksState()])
def test_the_states_that_are_kept_are_few(state: ChecksState) -> None:
    checks = StreamChecks(FORMAT, 7, state)
    for second in range(8, 3000):
        checks.add(PARTS["speech" if second % 2 else "zeros"])
        checks.forget_before(second - 3)
    assert len(checks._states) <= 5


TEXT = b"the quick brown fox\n" * 500
QUIET = {Encoding.MULAW: b"vwxyz{|}~", Encoding.ALAW: b"PQTUVWX"}


@pytest.mark.parametrize("encoding", QUIET)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_text_in_place_of_8_bit_samples_is_found_and_quiet_samples_are_none(
    encoding: Encoding, channels: int
) -> None:
    noise = RNG.choice(np.frombuffer(QUIET[encoding], np.uint8), 8001).tobytes()
    for data, reasons in [(TEXT, ["NOT_RAW_SAMPLES"]), (noise, [])]:
        checks = StreamChecks(AudioFormat(encoding, 8000, channels))
        checks.add(data)
        assert [reason for _, reason in found(checks) if reason == "NOT_RAW_SAMPLES"] == reasons
