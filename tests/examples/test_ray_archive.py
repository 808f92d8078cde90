"""The Ray Data example, on a local cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import soundfile
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel
from support import tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("ray", reason="Ray is not installed: run `make test-examples`")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    (folder / "deep").mkdir(parents=True)
    for name, words in (
        ("one.wav", [(0.5, "low"), (1.4, "mid")]),
        ("deep/two.flac", [(0.7, "high")]),
        ("none.ogg", []),
    ):
        soundfile.write(folder / name, tiny_model.recording(words, 3.0), tiny_model.RATE_HZ)
    (folder / "broken.wav").write_text("no sound")
    (folder / "done.wav").write_text("must not be opened")
    (folder / "notes.txt").write_text("no recording")
    return folder


@pytest.fixture
def run(archive: Path, tiny_model_path: Path) -> Callable[[], str]:
    def run() -> str:
        command = [sys.executable, "examples/ray_archive.py", archive, archive.parent / "out"]
        options = [f"--model={tiny_model_path}", "--files-per-part=2"]
        # On a busy machine, Ray's processes may not start within its timeout of 30 s.
        for _ in range(3):
            done = subprocess.run(
                [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            if "timed out during startup" not in done.stderr:
                break
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def rows(archive: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for part in (archive.parent / "out").glob("*.parquet"):
        for row in parquet.read_table(part).to_pylist():
            found.setdefault(row["path"], []).append(row)
    return found


def expected_ids(path: Path, model: Path) -> list[str]:
    samples, rate_hz = soundfile.read(path, dtype="int16")
    spotter = Spotter(SpotterModel.load(model), audio_format=AudioFormat(Encoding.LINEAR16, rate_hz))
    return [one.id for one in spotter.feed(samples.tobytes()) + spotter.flush()]


def test_a_run_processes_only_recordings_without_rows(
    archive: Path, run: Callable[[], str], tiny_model_path: Path
) -> None:
    out = archive.parent / "out"
    out.mkdir()
    parquet.write_table(pa.table({"path": ["done.wav"], "keyword": ["high"]}), out / "before.parquet")
    # An interrupted run leaves such a file.
    whole = (out / "before.parquet").read_bytes()
    (out / "stopped.parquet").write_bytes(whole[: len(whole) // 2])

    output = run()
    assert "4 of 5 recordings to process" in output
    assert "1 unreadable recordings" in output
    found = rows(archive)
    assert found.keys() == {"done.wav", "one.wav", "deep/two.flac", "none.ogg", "broken.wav"}
    for name in ("one.wav", "deep/two.flac"):
        assert [row["detection_id"] for row in found[name]] == expected_ids(archive / name, tiny_model_path)
        assert {row["audio_s"] for row in found[name]} == {3.0}
    assert [row["keyword"] for row in found["one.wav"]] == ["low", "mid"]
    assert [row["keyword"] for row in found["none.ogg"]] == [None]
    assert "not a recording" in found["broken.wav"][0]["error"]
    assert [row["keyword"] for row in found["done.wav"]] == ["high"]
    assert run().splitlines() == ["0 of 5 recordings to process"]
