"""The process that validates a model, and how it may end."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from earmark_server.inference import model_sandbox
from earmark_spotter import ModelError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 6, f"signal {signal.SIGRTMIN + 6}")]
)
def test_a_model_whose_validation_ends_with_a_signal_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cause: str
) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nkill -{number:d} $$\n")
    script.chmod(0o700)
    monkeypatch.setattr(model_sandbox.sys, "executable", str(script))
    with pytest.raises(ModelError, match=f"ended with {cause}"):
        asyncio.run(model_sandbox.validate_model(b"a model"))
