"""What `earmark web` answers over HTTP, and to whom."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import earmark_web
import jsonschema
import openapi_spec_validator
import pytest
import soundfile
from earmark_web import http_api
from earmark_web.app import make_app
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from support.earmark_command import RATE_HZ, samples

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(earmark_web.__file__).parent
SELF = "http://localhost"


@pytest.fixture(scope="module")
def web(address: str) -> Iterator[TestClient]:
    with TestClient(make_app(address, names=["kws.example.org"]), base_url=SELF) as client:
        yield client


@pytest.fixture(scope="module")
def clip() -> bytes:
    """The word "mid" as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, samples()[RATE_HZ : RATE_HZ * 2], RATE_HZ, format="WAV")
    return file.getvalue()


def schema(name: str) -> dict[str, Any]:
    description = json.loads((HERE / "openapi.json").read_text())
    return {"$ref": f"#/components/schemas/{name}", "components": description["components"]}


def error(answer: Any) -> tuple[int, str]:
    """An error's code and reason, once it is what the description says."""
    jsonschema.validate(answer.json(), schema("Error"))
    assert answer.json()["error"]["message"]
    return answer.status_code, answer.json()["error"]["reason"]


def test_the_description_is_openapi_and_has_every_address(web: TestClient) -> None:
    description = web.get("/openapi.json").json()
    openapi_spec_validator.validate(description)
    assert {*description["paths"]} == {"/health", "/info", "/predict"}


def test_health_and_info_are_as_described(web: TestClient) -> None:
    health, info = web.get("/health"), web.get("/info")
    assert (health.status_code, health.json()) == (200, {"status": "SERVING"})
    jsonschema.validate(info.json(), schema("Info"))
    assert [one["keyword"] for one in info.json()["models"][0]["keywords"]] == ["low", "mid", "high"]


def test_predict_names_the_word_in_a_clip(web: TestClient, clip: bytes) -> None:
    answer = web.post("/predict", files={"file": ("clip.wav", clip)})
    found = answer.json()
    assert answer.status_code == 200
    jsonschema.validate(found, schema("Prediction"))
    assert found["prediction"] == "mid"
    assert next(iter(found["probabilities"])) == "mid"
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert found["latency_ms"] > 0
    assert found["audio_s"] == pytest.approx(1.0)


def test_a_request_that_cannot_be_served_is_told_why(web: TestClient, clip: bytes) -> None:
    assert error(web.post("/predict")) == (400, "BAD_REQUEST")
    assert error(web.post("/predict", data={"file": "text"})) == (400, "BAD_REQUEST")
    assert (
        error(web.post("/predict", content=b"--x", headers={"content-type": "multipart/form-data"}))[0] == 400
    )
    assert error(web.post("/predict", files={"file": b""}))[0] == 400
    assert error(web.post("/predict", files={"file": b"no sound" * 99})) == (400, "BAD_AUDIO")
    unknown = web.post("/predict", files={"file": clip}, data={"model": "none"})
    assert error(unknown) == (404, "UNKNOWN_MODEL")
    assert error(web.get("/predict")) == (405, "BAD_REQUEST")
    assert error(web.get("/nothing")) == (404, "BAD_REQUEST")
    assert error(web.get("/static/../app.py"))[0] == 404


def test_a_form_that_is_too_large_is_refused_before_it_is_read(web: TestClient) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(100):
            read += 1 << 20
            yield bytes(1 << 20)

    form = {"content-type": "multipart/form-data; boundary=b"}
    stated = web.post("/predict", content=b"--b", headers={**form, "content-length": "99999999999"})
    assert error(stated) == (413, "MESSAGE_TOO_LARGE")
    assert error(web.post("/predict", content=endless(), headers=form)) == (413, "MESSAGE_TOO_LARGE")


def test_a_form_that_does_not_come_is_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "_UPLOAD_WITHIN_S", 0.1)
    app, told = make_app(address), []

    async def receive() -> dict[str, Any]:
        return await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

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
    assert told[0]["status"] == 504
    assert json.loads(told[1]["body"])["error"]["reason"] == "IDLE_STREAM"


def test_without_a_server_every_answer_says_so() -> None:
    with TestClient(make_app("127.0.0.1:1"), base_url=SELF) as web:
        for answer in (web.get("/health"), web.get("/info"), web.post("/predict", files={"file": b"RIFF"})):
            assert answer.status_code == 503
            assert "no Earmark server answers at 127.0.0.1:1" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "evil.example:8080", "[::1"])
def test_a_name_that_was_made_to_lead_here_is_refused(web: TestClient, host: str) -> None:
    for path in ("/", "/info", "/static/main.js"):
        assert error(web.get(path, headers={"host": host})) == (403, "FOREIGN_SITE")


@pytest.mark.parametrize(
    "host", ["localhost:9", "127.0.0.1", "192.0.2.7:8080", "[::1]:80", "KWS.example.org"]
)
def test_its_own_names_and_numeric_addresses_are_taken(web: TestClient, host: str) -> None:
    assert web.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://localhost", "http://localhost:81"]
)
def test_another_site_can_neither_post_nor_listen(web: TestClient, clip: bytes, origin: str) -> None:
    headers = {"origin": origin}
    assert error(web.post("/predict", files={"file": clip}, headers=headers)) == (403, "FOREIGN_SITE")
    here = {"host": "localhost"}
    with pytest.raises(WebSocketDisconnect), web.websocket_connect("/stream", headers={**headers, **here}):
        pass
    with web.websocket_connect("/stream", headers={"origin": SELF, **here}):
        pass


def test_every_answer_keeps_the_browser_strict(web: TestClient) -> None:
    for path in ("/", "/info", "/static/main.js", "/nothing"):
        headers = web.get(path, headers={"origin": SELF}).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_the_page_needs_nothing_from_another_host() -> None:
    files = [path for path in (HERE / "static").iterdir() if path.is_file()]
    assert len(files) > 5
    for path in files:
        addresses = set(re.findall(r"(?:https?:)?//[\w.]+\w", path.read_text().replace("// ", "")))
        assert addresses <= {"http://www.w3.org"}, path
