"""The Ray Data example: the command it shows, a cluster of two nodes, object storage."""

from __future__ import annotations

import os
import re
import shlex
import shutil
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
def run(archive: Path, tiny_model_path: Path) -> Callable[..., str]:
    def run(*program: str, folders: tuple[str, ...] = (), **variables: str) -> str:
        folders = folders or (str(archive), str(archive.parent / "out"))
        command = [*(program or (sys.executable, "examples/ray_archive.py")), *folders]
        options = [f"--model={tiny_model_path}", "--files-per-part=2"]
        # On a busy machine, Ray's processes may not start within its timeout of 30 s.
        for _ in range(3):
            done = subprocess.run(
                [*command, *options],
                cwd=ROOT,
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
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
    archive: Path, run: Callable[..., str], tiny_model_path: Path
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
    assert found["broken.wav"][0]["error"].startswith("broken.wav: ")
    assert [row["keyword"] for row in found["done.wav"]] == ["high"]
    assert run().splitlines() == ["0 of 5 recordings to process"]


@pytest.mark.timeout(3 * TIMEOUT_S)
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_the_command_shown_works(
    archive: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = re.search(
        r"^    (uv run .*) ARCHIVE OUT", (ROOT / "examples/ray_archive.py").read_text(), re.MULTILINE
    )
    assert shown
    # Only what the command itself provides.
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    output = run(*shlex.split(shown[1]))
    assert "5 of 5 recordings to process" in output
    assert {row["keyword"] for row in rows(archive)["one.wav"]} == {"low", "mid"}


@pytest.mark.timeout(2 * TIMEOUT_S)
def test_a_cluster_of_two_nodes_processes_an_archive(archive: Path, run: Callable[..., str]) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        output = run(RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()
    assert "2 cores, 2 machines" in output
    assert rows(archive).keys() == {"done.wav", "one.wav", "deep/two.flac", "none.ogg", "broken.wav"}


@pytest.mark.timeout(2 * TIMEOUT_S)
def test_archive_and_results_in_object_storage(archive: Path, run: Callable[..., str]) -> None:
    moto = pytest.importorskip("moto.server", reason="moto is not installed: run `make test-examples`")
    from pyarrow.fs import FileSelector, FileSystem, copy_files

    server = moto.ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        storage = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
        folders = tuple(f"s3://key:secret@bucket/{name}?{storage}" for name in ("archive", "out"))
        system, path = FileSystem.from_uri(folders[0])
        system.create_dir("bucket")
        copy_files(str(archive), path, destination_filesystem=system)
        assert "5 of 5 recordings to process" in run(folders=folders)
        parts = [one.path for one in system.get_file_info(FileSelector("bucket/out"))]
        found = [row for part in parts for row in parquet.read_table(part, filesystem=system).to_pylist()]
        assert {row["keyword"] for row in found if row["path"] == "one.wav"} == {"low", "mid"}
        assert run(folders=folders).splitlines() == ["0 of 5 recordings to process"]
    finally:
        server.stop()
