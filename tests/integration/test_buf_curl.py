"""What any gRPC tool sees of the server: `buf curl`, which knows nothing but what reflection tells."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from outside import TIMEOUT_S, running_server, speech, tones

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outside import Case

SERVICE = "earmark.v1.KeywordSpottingService"


def find_buf() -> str | None:
    return shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")


pytestmark = pytest.mark.skipif(find_buf() is None, reason="no `buf`: pip install buf-bin")


@pytest.fixture(scope="module")
def case(tiny_model_path: Path) -> Case:
    return tones(tiny_model_path)


@pytest.fixture(scope="module")
def address(case: Case) -> Iterator[str]:
    with running_server(case) as address:
        yield address


def curl(
    address: str, *arguments: str, path: str = "", data: str | None = None
) -> subprocess.CompletedProcess[str]:
    buf = find_buf()
    assert buf is not None
    command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    if data is not None:
        command += ["--data", "@-"]
    return subprocess.run(
        [*command, f"http://{address}{path}"],
        input=data,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a text, one after the other."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        value, end = decoder.raw_decode(text, position)
        found.append(value)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return found


def test_services_are_listed(address: str) -> None:
    done = curl(address, "--list-services")
    assert done.returncode == 0, done.stderr
    services = done.stdout.split()
    assert SERVICE in services
    assert "grpc.health.v1.Health" in services
    methods = curl(address, "--list-methods").stdout.split()
    for rpc in ("StreamingSpot", "Spot", "Classify", "ListModels", "GetModel"):
        assert f"{SERVICE}/{rpc}" in methods


@pytest.mark.parametrize("name", ["", SERVICE])
def test_health_is_serving(address: str, name: str) -> None:
    done = curl(address, path="/grpc.health.v1.Health/Check", data=json.dumps({"service": name}))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"status": "SERVING"}


def test_health_of_an_unknown_service_is_not_found(address: str) -> None:
    done = curl(address, path="/grpc.health.v1.Health/Check", data='{"service": "no.such.Service"}')
    assert done.returncode != 0
    assert json.loads(done.stderr)["code"] == "not_found"


def requests(case: Case, **settings: Any) -> str:
    audio_format = {"encoding": "ENCODING_LINEAR16", "sampleRateHertz": case.rate_hz}
    messages: list[dict[str, Any]] = [{"config": {"audioFormat": audio_format, **settings}}]
    pieces = [case.samples[start : start + 20_000] for start in range(0, len(case.samples), 20_000)]
    messages += [{"audio": base64.b64encode(piece).decode()} for piece in pieces]
    return "\n".join(map(json.dumps, messages))


def assert_marked(case: Case, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    events = objects(done.stdout)
    assert list(events[0]) == ["started"]
    assert events[0]["started"]["requestId"] == "from outside"
    assert list(events[-1]) == ["ended"]
    found = [event["detection"] for event in events if "detection" in event]
    assert [(one["keyword"], one["detectionId"]) for one in found] == case.heard()
    assert events[-1]["ended"].get("detectionCount", 0) == len(found)
    assert float(events[-1]["ended"]["audioDuration"].rstrip("s")) == pytest.approx(case.seconds)


def test_a_stream_is_marked(case: Case, address: str) -> None:
    done = curl(address, path=f"/{SERVICE}/StreamingSpot", data=requests(case, requestId="from outside"))
    assert_marked(case, done)
    assert len(case.heard()) == 4


def test_real_speech_is_marked() -> None:
    case = speech()
    with running_server(case) as address:
        done = curl(address, path=f"/{SERVICE}/StreamingSpot", data=requests(case, requestId="from outside"))
    assert_marked(case, done)


def test_a_refusal_names_its_reason(case: Case, address: str) -> None:
    data = requests(case, keywords=[{"keyword": "xyzzy"}]).splitlines()[0]
    done = curl(address, path=f"/{SERVICE}/StreamingSpot", data=data)
    assert done.returncode != 0
    told = json.loads(done.stderr)
    assert told["code"] == "invalid_argument"
    assert "xyzzy" in told["message"]
    (value,) = [one["value"] for one in told["details"] if one["type"] == "google.rpc.ErrorInfo"]
    info = ErrorInfo.FromString(base64.b64decode(value + "=="))
    assert (info.reason, info.domain) == ("UNKNOWN_KEYWORD", "earmark.v1")
