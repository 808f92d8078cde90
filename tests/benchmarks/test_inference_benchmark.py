from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_has_every_model_and_batch_size(tiny_model_path: Path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.inference",
        tiny_model_path,
        tiny_model_path,
        "--rounds",
        "3",
    ]
    done = subprocess.run(
        [*command, "--batches", "1,16"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    header, _, *lines = done.stdout.splitlines()
    assert header == "| model | audio per inference | 1 stream | 16 streams |"
    assert len(lines) == 2
    for line in lines:
        _, audio, *costs = (cell.strip() for cell in line.strip("|").split("|"))
        assert audio == "100 ms"
        assert all(0 < float(cost) < 1000 for cost in costs)


def test_an_invalid_model_file_is_named(tmp_path: Path):
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    command = [sys.executable, "-m", "benchmarks.inference", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "text.onnx" in done.stderr
    assert "Traceback" not in done.stderr
