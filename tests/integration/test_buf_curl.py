"""The server as any gRPC tool sees it: `buf curl`, which knows only what reflection returns."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from earmark_server.credentials.tokens import add_token
from google.rpc.error_details_pb2 import ErrorInfo
from support import tiny_models
from support.certificates import Authority
from support.deadlines import DEADLINE_S
from support.paths import REPOSITORY
from support.readme_commands import examples
from support.sample_audio import running_server, speech, tones

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.sample_audio import SampleAudio

SERVICE = "earmark.v1.KeywordSpottingService"


def find_buf() -> str | None:
    return shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")


pytestmark = pytest.mark.skipif(find_buf() is None, reason="no `buf`: pip install buf-bin")


@pytest.fixture(scope="module")
def case(tiny_model_path: Path) -> SampleAudio:
    return tones(tiny_model_path)


@pytest.fixture(scope="module")
def address(case: SampleAudio) -> Iterator[str]:
    with running_server(case) as address:
        yield address


def curl(
    address: str, *arguments: str, path: str = "", data: str | None = None, tls: bool = False
) -> subprocess.CompletedProcess[str]:
    buf = find_buf()
    assert buf is not None
    # Over TLS client and server negotiate HTTP/2.
    command = [buf, "curl", "--protocol", "grpc", *arguments]
    if not tls:
        command.append("--http2-prior-knowledge")
    if data is not None:
        command += ["--data", "@-"]
    return subprocess.run(
        [*command, f"http{'s' if tls else ''}://{address}{path}"],
        input=data,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a text, in their order."""
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


def requests(case: SampleAudio, **settings: Any) -> str:
    audio_format = {"encoding": "ENCODING_LINEAR16", "sampleRateHertz": case.rate_hz}
    messages: list[dict[str, Any]] = [{"config": {"audioFormat": audio_format, **settings}}]
    pieces = [case.samples[start : start + 20_000] for start in range(0, len(case.samples), 20_000)]
    messages += [{"audio": base64.b64encode(piece).decode()} for piece in pieces]
    return "\n".join(map(json.dumps, messages))


def assert_marked(case: SampleAudio, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    events = objects(done.stdout)
    assert list(events[0]) == ["started"]
    assert events[0]["started"]["requestId"] == "from outside"
    assert list(events[-1]) == ["ended"]
    found = [event["detection"] for event in events if "detection" in event]
    assert [(one["keyword"], one["detectionId"]) for one in found] == case.detections()
    assert events[-1]["ended"].get("detectionCount", 0) == len(found)
    assert float(events[-1]["ended"]["audioDuration"].rstrip("s")) == pytest.approx(case.seconds)


def test_a_stream_receives_its_detections(case: SampleAudio, address: str) -> None:
    done = curl(address, path=f"/{SERVICE}/StreamingSpot", data=requests(case, requestId="from outside"))
    assert_marked(case, done)
    assert len(case.detections()) == 4


def test_keywords_in_real_speech_are_detected() -> None:
    case = speech()
    with running_server(case) as address:
        done = curl(address, path=f"/{SERVICE}/StreamingSpot", data=requests(case, requestId="from outside"))
    assert_marked(case, done)


@pytest.mark.slow
def test_a_stream_can_have_several_models(case: SampleAudio, tmp_path: Path) -> None:
    slow = tiny_models.build(tmp_path, "slow")
    with running_server(case, f"--model={slow}") as address:
        names = [one["name"] for one in json.loads(list_models(address))["models"]]
        assert sorted(names) == ["slow", "tiny"]
        path = f"/{SERVICE}/StreamingSpot"
        done = curl(address, path=path, data=requests(case, models=["tiny", "slow"]))
        assert done.returncode == 0, done.stderr
        events = objects(done.stdout)
        assert [one["name"] for one in events[0]["started"]["models"]] == ["tiny", "slow"]
        found = [event["detection"] for event in events if "detection" in event]
        of_tiny = [(one["keyword"], one["detectionId"]) for one in found if one["model"] == "tiny"]
        assert of_tiny == [(keyword, f"tiny/{each}") for keyword, each in case.detections()]
        assert [one["keyword"] for one in found if one["model"] == "slow"] == ["low", "mid", "low"]
        for models, code in (
            (["tiny", "nosuch"], "not_found"),
            (["tiny", "tiny"], "invalid_argument"),
            (["tiny"] * 9, "invalid_argument"),
        ):
            done = curl(address, path=path, data=requests(case, models=models).splitlines()[0])
            assert json.loads(done.stderr)["code"] == code


def list_models(address: str) -> str:
    return curl(address, path=f"/{SERVICE}/ListModels", data="{}").stdout


def test_a_rejection_names_its_reason(case: SampleAudio, address: str) -> None:
    data = requests(case, keywords=[{"keyword": "xyzzy"}]).splitlines()[0]
    done = curl(address, path=f"/{SERVICE}/StreamingSpot", data=data)
    assert done.returncode != 0
    error = json.loads(done.stderr)
    assert error["code"] == "invalid_argument"
    assert "xyzzy" in error["message"]
    (value,) = [one["value"] for one in error["details"] if one["type"] == "google.rpc.ErrorInfo"]
    info = ErrorInfo.FromString(base64.b64decode(value + "=="))
    assert (info.reason, info.domain) == ("UNKNOWN_KEYWORD", "earmark.v1")


def reason(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Return the status and the reason of a rejected call."""
    assert done.returncode != 0
    error = json.loads(done.stderr)
    (value,) = [one["value"] for one in error["details"] if one["type"] == "google.rpc.ErrorInfo"]
    return error["code"], ErrorInfo.FromString(base64.b64decode(value + "==")).reason


@pytest.mark.slow
def test_every_call_needs_tls_and_a_token_where_the_server_does(case: SampleAudio, tmp_path: Path) -> None:
    authority, tokens = Authority(tmp_path), tmp_path / "tokens"
    own, token = authority.sign(), add_token("alice", str(tokens))
    options = [f"--tls-certificate={own.certificate}", f"--tls-key={own.key}", f"--token-file={tokens}"]
    stream, health = f"/{SERVICE}/StreamingSpot", "/grpc.health.v1.Health/Check"
    data = requests(case, requestId="from outside")
    trust, show = ("--cacert", str(authority.path)), ("--header", f"Authorization: Bearer {token}")
    with running_server(case, *options, "--open-health") as address:
        # buf requests the messages' definitions by reflection, with the same header.
        ask = (*trust, *show, "--reflect-header", "*")
        assert_marked(case, curl(address, *ask, path=stream, data=data, tls=True))
        assert SERVICE in curl(address, *ask, "--list-services", tls=True).stdout.split()
        schema = ("--schema", str(REPOSITORY / "protos"))
        done = curl(address, *trust, *schema, path=stream, data=data, tls=True)
        assert reason(done) == ("unauthenticated", "MISSING_CREDENTIALS")
        wrong = ("--header", "Authorization: Bearer wrong")
        done = curl(address, *trust, *wrong, *schema, path=stream, data=data, tls=True)
        assert reason(done) == ("unauthenticated", "BAD_CREDENTIALS")
        # The header is for reflection alone: the health check itself has none.
        lookup = ("--reflect-header", show[1])
        done = curl(address, *trust, *lookup, path=health, data="{}", tls=True)
        assert json.loads(done.stdout) == {"status": "SERVING"}, done.stderr
        untrusted = curl(address, *show, *schema, path=stream, data=data, tls=True)
        assert "certificate signed by unknown authority" in untrusted.stderr
        plain = curl(address, *show, *schema, path=stream, data=data)
        # buf reports "canceled" when the server closes the call while buf still sends.
        assert not plain.stdout
        assert json.loads(plain.stderr)["code"] in {"unavailable", "canceled"}


@pytest.mark.skipif(
    shutil.which("protoc-gen-go") is None or shutil.which("protoc-gen-go-grpc") is None,
    reason="no protoc-gen-go and protoc-gen-go-grpc",
)
def test_managed_mode_generates_code_for_go(tmp_path: Path) -> None:
    buf = find_buf()
    assert buf is not None
    (template,) = examples("docs/clients.md", "yaml")
    (tmp_path / "buf.gen.yaml").write_text(template)
    (tmp_path / "protos").symlink_to(REPOSITORY / "protos")
    command = [buf, "generate"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    generated = {path.name for path in (tmp_path / "gen/earmark/v1").iterdir()}
    assert {"keyword_spotting.pb.go", "keyword_spotting_service_grpc.pb.go"} <= generated
    code = (tmp_path / "gen/earmark/v1/keyword_spotting_service.pb.go").read_text()
    assert "\npackage earmarkv1\n" in code
