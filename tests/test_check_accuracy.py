"""scripts/check_accuracy.py: a model that learned nothing is not uploaded as a model."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from support.paths import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("figures", "code", "message"),
    [
        ({"clip_accuracy": 0.789}, 0, "accuracy on clips: 78.9%, at least 70.0%"),
        ({"clip_accuracy": 0.099}, 1, "the accuracy on clips is 9.9%, below 70.0%"),
        ({}, 1, "has no accuracy on clips"),
    ],
)
def test_a_model_below_the_figure_fails(
    figures: dict[str, float], code: int, message: str, tmp_path: Path
) -> None:
    report = tmp_path / "metrics.json"
    report.write_text(json.dumps({"figures": figures}))
    command = [sys.executable, "scripts/check_accuracy.py", str(report), "0.7"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert message in done.stdout + done.stderr


def test_the_workflow_checks_before_it_uploads_a_model() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/train.yml").read_text())
    steps = workflow["jobs"]["train"]["steps"]
    check = next(i for i, step in enumerate(steps) if "check_accuracy.py" in step.get("run", ""))
    upload = next(i for i, step in enumerate(steps) if step.get("with", {}).get("name") == "model")
    assert check < upload
    assert "if" not in steps[upload]  # the default: only if all steps before it succeeded
