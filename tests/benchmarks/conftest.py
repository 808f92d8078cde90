from __future__ import annotations

import pytest
from support.environment import NO_OVERLOAD


@pytest.fixture(autouse=True)
def no_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the servers of the benchmarks admit streams on a busy machine, too."""
    for name, value in NO_OVERLOAD.items():
        monkeypatch.setenv(name, value)
