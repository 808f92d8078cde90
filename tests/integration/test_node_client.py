"""A client in another language: Node with @grpc/grpc-js, written from the API definition alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import tiny_models
from support.deadlines import DEADLINE_S
from support.paths import REPOSITORY
from support.readme_commands import examples
from support.sample_audio import running_server, speech, tones

if TYPE_CHECKING:
    from support.sample_audio import SampleAudio

CLIENT = Path(__file__).parent / "node_client"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="no Node: install node and npm"
)


@pytest.fixture(scope="module")
def client() -> Path:
    """Return the client with the packages of its lock file installed."""
    installed = CLIENT / "node_modules/.package-lock.json"
    lock = CLIENT / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode and any(
            sign in done.stderr for sign in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED")
        ):
            pytest.skip("npm cannot reach its registry")
        assert done.returncode == 0, done.stderr
        installed.touch()
    return CLIENT / "index.mjs"


def run_client(
    client: Path, case: SampleAudio, samples: Path, *options: str, models: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Run the client against a server and return its output as objects."""
    samples.write_bytes(case.samples)
    with running_server(case, *options) as address:
        command = ["node", str(client), address, str(samples), str(case.rate_hz), *models]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_detections(case: SampleAudio, output: list[dict[str, Any]]) -> None:
    assert output[0] == {"event": "health", "server": "SERVING", "service": "SERVING", "unknown": "NOT_FOUND"}
    assert output[1]["names"] == [case.model.metadata.name]
    assert output[2]["event"] == "started"
    assert output[2]["keywords"] == list(case.model.metadata.keyword_names)
    found = [(one["keyword"], one["id"]) for one in output if one["event"] == "detection"]
    assert found == case.detections()
    ended = next(one for one in output if one["event"] == "ended")
    assert ended["audio_s"] == pytest.approx(case.seconds)
    assert ended["detections"] == len(found)
    assert [one for one in output if one["event"] in ("status", "refused")] == [
        {"event": "status", "code": "OK", "request_id": "node 1"},
        {"event": "refused", "code": "INVALID_ARGUMENT", "reason": "UNKNOWN_KEYWORD", "domain": "earmark.v1"},
        {"event": "status", "code": "INVALID_ARGUMENT", "request_id": "node 2"},
    ]


@pytest.mark.slow
def test_node_receives_the_detections_of_a_stream(
    client: Path, tiny_model_path: Path, tmp_path: Path
) -> None:
    case = tones(tiny_model_path)
    output = run_client(client, case, tmp_path / "samples.raw")
    assert_detections(case, output)
    assert len(case.detections()) == 4
    assert [one["token_bytes"] > 0 for one in output if one["event"] == "progress"] == [True] * 4


@pytest.mark.slow
def test_node_receives_the_detections_of_several_models(
    client: Path, tiny_model_path: Path, tmp_path: Path
) -> None:
    case = tones(tiny_model_path)
    slow = tiny_models.build(tmp_path, "slow")
    samples, option = tmp_path / "samples.raw", f"--model={slow}"
    output = run_client(client, case, samples, option, models=("tiny", "slow"))
    assert output[2]["models"] == ["tiny", "slow"]
    found = [(one["model"], one["keyword"]) for one in output if one["event"] == "detection"]
    assert [keyword for model, keyword in found if model == "tiny"] == ["low", "mid", "high", "low"]
    assert [keyword for model, keyword in found if model == "slow"] == ["low", "mid", "low"]


@pytest.mark.slow
def test_node_receives_the_detections_of_real_speech(client: Path, tmp_path: Path) -> None:
    case = speech()
    assert_detections(case, run_client(client, case, tmp_path / "samples.raw"))


@pytest.mark.slow
def test_the_example_works(client: Path, tmp_path: Path) -> None:
    case = speech()
    (tmp_path / "samples.raw").write_bytes(case.samples)
    (tmp_path / "node_modules").symlink_to(client.parent / "node_modules")
    (code,) = examples("docs/clients.md", "js")
    with running_server(case) as address:
        for placeholder, real in (
            ('"protos"', json.dumps(str(REPOSITORY / "protos"))),
            ('"localhost:50051"', json.dumps(address)),
            ('"speech.raw"', json.dumps(str(tmp_path / "samples.raw"))),
            ("16000", str(case.rate_hz)),
        ):
            assert placeholder in code
            code = code.replace(placeholder, real)
        command = ["node", str(tmp_path / "example.mjs")]

        def run(code: str) -> subprocess.CompletedProcess[str]:
            (tmp_path / "example.mjs").write_text(code)
            return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

        rejected = run(code.replace(f"sampleRateHertz: {case.rate_hz}", "sampleRateHertz: 7"))
        done = run(code)
    unreachable = run(code)
    assert rejected.stderr.startswith("INVALID_ARGUMENT UNSUPPORTED_SAMPLE_RATE ")
    assert unreachable.stderr.startswith("UNAVAILABLE undefined ")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        keyword for keyword, _ in case.detections()
    ]
