"""The process that validates a model, and how it may end."""

from __future__ import annotations

import asyncio
import platform
import signal
from typing import TYPE_CHECKING

import pytest
from earmark_server.inference import model_sandbox
from earmark_spotter import ModelError
from support.deadlines import DEADLINE_S
from support.harmful_models import crashing_model, endless_model

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


def test_after_a_model_that_crashes_or_hangs_the_next_ones_are_validated(
    tmp_path: Path, tiny_model_path: Path
) -> None:
    good = tiny_model_path.read_bytes()
    cause = "SIGFPE" if platform.machine() in ("x86_64", "AMD64") else "scores"
    with model_sandbox.ModelSandbox() as sandbox:
        with pytest.raises(ModelError, match="not an ONNX model"):
            sandbox.validate(b"garbage", DEADLINE_S)
        with pytest.raises(ModelError, match=cause):
            sandbox.validate(crashing_model(tmp_path / "m.onnx"), DEADLINE_S)
        sandbox.validate(good, DEADLINE_S)
        process = sandbox._process
        sandbox.validate(good, DEADLINE_S)
        assert sandbox._process is process
        with pytest.raises(TimeoutError, match=r"did not load within 0\.2 s"):
            sandbox.validate(endless_model(tmp_path / "m.onnx"), 0.2)
        sandbox.validate(good, DEADLINE_S)
