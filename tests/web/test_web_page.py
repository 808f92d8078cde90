"""The HTTP side of `earmark web`: the JSON API, the page's files, and which requests are rejected."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import earmark_web
import numpy as np
import pytest
import soundfile
from earmark_cli.command_line import build_parser
from earmark_cli.usage_error import UsageError
from earmark_web import http_api
from earmark_web.app import make_app
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from support.earmark_command import RATE_HZ, SECONDS, WORDS, samples
from support.paths import DEMO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PACKAGE = Path(earmark_web.__file__).parent
ORIGIN = "http://localhost"


@pytest.fixture(scope="module")
def web(address: str) -> Iterator[TestClient]:
    with TestClient(make_app(address, sample=DEMO, names=["kws.example.org"]), base_url=ORIGIN) as client:
        yield client


@pytest.fixture(scope="module")
def clip() -> bytes:
    """The word "mid" as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, samples()[RATE_HZ : RATE_HZ * 2], RATE_HZ, format="WAV")
    return file.getvalue()


def schema(name: str) -> dict[str, Any]:
    document = json.loads((PACKAGE / "openapi.json").read_text())
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def check(document: Any, name: str) -> None:
    """Fail if a document does not match the schema of this name."""
    import jsonschema

    jsonschema.validate(document, schema(name))


def error(response: Any) -> tuple[int, str]:
    """Return an error's HTTP code and reason; fail if it does not match the OpenAPI document."""
    check(response.json(), "Error")
    assert response.json()["error"]["message"]
    return response.status_code, response.json()["error"]["reason"]


def test_the_openapi_document_is_valid_and_lists_every_path(web: TestClient) -> None:
    import openapi_spec_validator  # which takes long

    document = web.get("/openapi.json").json()
    openapi_spec_validator.validate(document)
    assert {*document["paths"]} == {"/health", "/info", "/predict", "/spot"}


def test_health_and_info_match_the_openapi_document(web: TestClient) -> None:
    health, info = web.get("/health"), web.get("/info")
    assert (health.status_code, health.json()) == (200, {"status": "SERVING"})
    check(info.json(), "Info")
    assert [one["keyword"] for one in info.json()["models"][0]["keywords"]] == ["low", "mid", "high"]


def test_predict_returns_the_class_of_a_clip(web: TestClient, clip: bytes) -> None:
    response = web.post("/predict", files={"file": ("clip.wav", clip)})
    result = response.json()
    assert response.status_code == 200
    check(result, "Prediction")
    assert result["prediction"] == "mid"
    assert next(iter(result["probabilities"])) == "mid"
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert result["latency_ms"] > 0
    assert result["audio_s"] == pytest.approx(1.0)


def wav_file(**how: Any) -> bytes:
    """The recording with three words, by default as WAV."""
    file = io.BytesIO()
    soundfile.write(file, samples(), RATE_HZ, **{"format": "WAV", **how})
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64"])
def test_spot_returns_the_keywords_of_a_recording_with_their_times(web: TestClient, kind: str) -> None:
    response = web.post("/spot", files={"file": ("recording", wav_file(format=kind))})
    result = response.json()
    assert response.status_code == 200
    check(result, "Detections")
    assert [one["keyword"] for one in result["detections"]] == [word for _, word in WORDS]
    assert [one["start_s"] for one in result["detections"]] == pytest.approx([s for s, _ in WORDS], abs=0.3)
    assert all(one["start_s"] < one["end_s"] for one in result["detections"])
    assert result["audio_s"] == pytest.approx(SECONDS, abs=0.1)
    assert result["warnings"] == []


def test_spot_returns_the_detections_of_a_truncated_recording_with_a_warning(web: TestClient) -> None:
    whole = wav_file()
    result = web.post("/spot", files={"file": ("a.wav", whole[: len(whole) // 2])}).json()
    check(result, "Detections")
    assert [one["reason"] for one in result["warnings"]] == ["RECORDING_INCOMPLETE"]
    assert 0 < len(result["detections"]) < len(WORDS)


def test_a_recording_over_the_limit_of_the_service_is_too_large(web: TestClient) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(301 * 8000, "int16"), 8000, format="WAV", subtype="ULAW")
    for path in ("/spot", "/predict"):
        assert error(web.post(path, files={"file": file.getvalue()})) == (413, "MESSAGE_TOO_LARGE")


def test_the_sample_is_the_recording_of_the_demo(web: TestClient) -> None:
    response = web.get("/sample")
    assert response.status_code == 200
    assert response.content == DEMO.read_bytes()


@pytest.mark.parametrize("path", ["/predict", "/spot"])
def test_an_invalid_request_gets_a_code_and_a_reason(web: TestClient, clip: bytes, path: str) -> None:
    assert error(web.post(path)) == (400, "BAD_REQUEST")
    assert error(web.post(path, data={"file": "text"})) == (400, "BAD_REQUEST")
    assert error(web.post(path, content=b"--x", headers={"content-type": "multipart/form-data"}))[0] == 400
    assert error(web.post(path, files={"file": b""}))[0] == 400
    assert error(web.post(path, files={"file": b"no sound" * 99})) == (400, "BAD_AUDIO")
    unknown = web.post(path, files={"file": clip}, data={"model": "none"})
    assert error(unknown) == (404, "UNKNOWN_MODEL")
    assert error(web.get(path)) == (405, "BAD_REQUEST")
    assert error(web.get("/nothing")) == (404, "BAD_REQUEST")
    assert error(web.get("/static/../app.py"))[0] == 404


def test_a_form_with_an_unusable_charset_is_invalid(web: TestClient, clip: bytes) -> None:
    part = b'--XX\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    form = part % (b"file", b'; filename="a.wav"', clip) + part % (b"model", b"", b"a") + b"--XX--\r\n"
    unknown_model = (404, "UNKNOWN_MODEL")  # the form could be read
    answers = {"undefined": (400, "BAD_REQUEST"), "nope": unknown_model, "idna": unknown_model}
    for charset, expected in answers.items():
        headers = {"content-type": f"multipart/form-data; boundary=XX; charset={charset}"}
        assert error(web.post("/spot", content=form, headers=headers)) == expected


@pytest.mark.parametrize("path", ["/predict", "/spot"])
def test_a_form_over_the_limit_is_rejected_before_it_is_read(web: TestClient, path: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(100):
            yield bytes(1 << 20)

    form = {"content-type": "multipart/form-data; boundary=b"}
    declared = web.post(path, content=b"--b", headers={**form, "content-length": "99999999999"})
    assert error(declared) == (413, "MESSAGE_TOO_LARGE")
    assert error(web.post(path, content=endless(), headers=form)) == (413, "MESSAGE_TOO_LARGE")


async def never_arrives() -> dict[str, Any]:
    return await asyncio.Future()


async def disconnects() -> dict[str, Any]:
    return {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("receive", "status", "reason"),
    [(never_arrives, 504, "IDLE_STREAM"), (disconnects, 400, "BAD_REQUEST")],
)
def test_a_form_that_is_not_complete_ends(
    address: str,
    receive: Callable[[], Awaitable[dict[str, Any]]],
    status: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_api, "_UPLOAD_TIMEOUT_S", 0.1)
    app, sent = make_app(address, sample=DEMO), []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def scenario() -> None:
        async with app.router.lifespan_context(app) as state:
            headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/predict",
                "headers": headers,
                "scheme": "http",
            }
            async with asyncio.timeout(60):
                await app({**scope, "headers": headers, "scheme": "http", "state": state}, receive, send)

    asyncio.run(scenario())
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"])["error"]["reason"] == reason


def test_without_a_grpc_server_every_path_returns_503() -> None:
    with TestClient(make_app("127.0.0.1:1", sample=DEMO), base_url=ORIGIN) as web:
        for response in (web.get("/health"), web.get("/info"), web.post("/spot", files={"file": b"RIFF"})):
            assert response.status_code == 503
            assert "no Earmark server answers at 127.0.0.1:1" in response.json()["error"]["message"]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "evil.example:8080", "[::1"])
def test_an_unknown_host_name_is_rejected(web: TestClient, host: str) -> None:
    for path in ("/", "/info", "/static/main.js"):
        assert error(web.get(path, headers={"host": host})) == (403, "FOREIGN_SITE")
    for path in ("/spot", "/predict"):
        assert error(web.post(path, headers={"host": host})) == (403, "FOREIGN_SITE")


@pytest.mark.parametrize(
    "host", ["localhost:9", "127.0.0.1", "192.0.2.7:8080", "[::1]:80", "KWS.example.org"]
)
def test_known_names_and_numeric_addresses_are_accepted(web: TestClient, host: str) -> None:
    assert web.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://localhost", "http://localhost:81"]
)
def test_another_site_can_neither_post_nor_open_a_stream(web: TestClient, clip: bytes, origin: str) -> None:
    headers = {"origin": origin}
    for path in ("/spot", "/predict"):
        assert error(web.post(path, files={"file": clip}, headers=headers)) == (403, "FOREIGN_SITE")
    host = {"host": "localhost"}
    with pytest.raises(WebSocketDisconnect), web.websocket_connect("/stream", headers={**headers, **host}):
        pass
    with web.websocket_connect("/stream", headers={"origin": ORIGIN, **host}):
        pass


def test_a_page_of_an_allowed_origin_can_post_and_open_a_stream(address: str, clip: bytes) -> None:
    app = make_app(address, sample=DEMO, origins=["https://app.example"])
    with TestClient(app, base_url=ORIGIN) as web:
        headers = {"origin": "https://app.example", "host": "localhost"}
        response = web.post("/spot", files={"file": clip}, headers=headers)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert response.headers["vary"] == "origin"
        with web.websocket_connect("/stream", headers=headers):
            pass
        for origin in ("https://app.example.evil", "http://app.example", "null"):
            headers["origin"] = origin
            response = web.post("/spot", files={"file": clip}, headers=headers)
            assert error(response) == (403, "FOREIGN_SITE")
            assert "access-control-allow-origin" not in response.headers
        assert "access-control-allow-origin" not in web.get("/info", headers={"origin": ORIGIN}).headers


@pytest.mark.parametrize("text", ["*", "example.org", "https://*.example.org", "https://a/b", "ftp://a", ""])
def test_an_option_that_is_no_origin_is_rejected(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not an origin such as https://example\.org"):
        build_parser().parse_args(["web", "--allow-origin", text])


def test_every_response_has_security_headers(web: TestClient) -> None:
    for path in ("/", "/info", "/static/main.js", "/nothing"):
        headers = web.get(path, headers={"origin": ORIGIN}).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_the_page_loads_nothing_from_another_host() -> None:
    files = [path for path in (PACKAGE / "static").iterdir() if path.is_file()]
    assert len(files) > 5
    for path in files:
        addresses = set(re.findall(r"(?:https?:)?//[\w.]+\w", path.read_text().replace("// ", "")))
        assert addresses <= {"http://www.w3.org"}, path
