from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_training.model.code_commit import code_commit

if TYPE_CHECKING:
    import pytest


def test_outside_a_checkout_the_commit_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")  # without git
    monkeypatch.delenv("EARMARK_COMMIT", raising=False)
    assert code_commit() == "unknown"
    monkeypatch.setenv("EARMARK_COMMIT", "0123456789ab")
    assert code_commit() == "0123456789ab"
