from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_audio.line_sampler import LineSampler

if TYPE_CHECKING:
    import pytest


def test_lines_that_repeat_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("earmark_audio.line_sampler.time.monotonic", lambda: now_s)
    sampler = LineSampler()
    admitted = [sampler.admit("OVERLOADED") for _ in range(1000)]
    written = sum(each is not None for each in admitted)
    assert written == 20
    assert sampler.admit("TOO_MANY_STREAMS") == {}
    now_s += 1
    assert sampler.admit("OVERLOADED") == {"suppressed": 1000 - written}
    assert sampler.admit("OVERLOADED") == {}
