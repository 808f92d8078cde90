from __future__ import annotations

import pytest
from support.environment import ADMIT_ALWAYS


@pytest.fixture(autouse=True)
def admit_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the servers of the benchmarks admit streams on a busy machine, too."""
    for name, value in ADMIT_ALWAYS.items():
        monkeypatch.setenv(f"EARMARK_{name.upper()}", str(value))
