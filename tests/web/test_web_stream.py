"""The page's WebSocket, and the gRPC stream behind it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from earmark_server.embedded import serve_in_thread
from earmark_web import websocket
from earmark_web.app import make_app
from starlette.testclient import TestClient, WebSocketTestSession
from support import tiny_models
from support.earmark_command import RATE_HZ, SECONDS, WORDS, samples
from support.environment import ADMIT_ALWAYS
from support.paths import DEMO
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = {"host": "localhost"}
CHUNK = RATE_HZ // 25


@pytest.fixture(scope="module")
def web(address: str) -> Iterator[TestClient]:
    with TestClient(make_app(address, sample=DEMO, max_streams=2), headers=HOST) as client:
        yield client


def receive_events(socket: WebSocketTestSession) -> list[dict[str, Any]]:
    """Return all events up to the last one."""
    events = [socket.receive_json()]
    while events[-1]["event"] not in {"ended", "error"}:
        events.append(socket.receive_json())
    return events


def stream(web: TestClient, changes: dict[int, dict[str, float]] | None = None) -> list[dict[str, Any]]:
    """Stream the words as a page does; `changes`: the new thresholds, by the sample at which they change."""
    # At this volume their scores are about 0.9.
    audio, changes = samples() // 10, changes or {}
    with web.websocket_connect("/stream") as socket:
        socket.send_json({"sample_rate_hz": RATE_HZ})
        for start in range(0, len(audio), CHUNK):
            if start in changes:
                socket.send_json({"keywords": changes[start]})
            socket.send_bytes(audio[start : start + CHUNK].tobytes())
        socket.send_json({"end": True})
        return receive_events(socket)


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def words(events: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(one["keyword"], one["start_s"]) for one in of_kind(events, "detection")]


def test_a_page_receives_detections_scores_and_the_end(web: TestClient) -> None:
    events = stream(web)
    assert events[0]["event"] == "started"
    assert {*events[0]["thresholds"]} == {"low", "mid", "high"}
    assert [one["keyword"] for one in of_kind(events, "detection")] == [word for _, word in WORDS]
    assert [one["start_s"] for one in of_kind(events, "detection")] == pytest.approx(
        [s for s, _ in WORDS], abs=0.3
    )
    assert {*of_kind(events, "scores")[0]["scores"]} >= {"low", "mid", "high"}
    assert events[-1] == {"event": "ended", "audio_s": SECONDS, "detections": 3}


@pytest.mark.parametrize(
    "at_s",
    [
        0.0,
        0.8,
        2.8,
        *(pytest.param(at_s, marks=pytest.mark.slow) for at_s in (0.4, 0.72, 0.96, 1.2, 1.6, 2.0, 3.96)),
    ],
)
def test_a_changed_threshold_affects_nothing_else(web: TestClient, at_s: float) -> None:
    unchanged = stream(web)
    same = unchanged[0]["thresholds"]["low"]
    changed = stream(web, {round(at_s * RATE_HZ): {"low": same}})
    assert [one[0] for one in words(changed)] == [one[0] for one in words(unchanged)]
    assert [one[1] for one in words(changed)] == pytest.approx([one[1] for one in words(unchanged)], abs=0.05)
    before, after = (
        [(s["offset_s"], s["scores"]["mid"]) for s in of_kind(events, "scores")]
        for events in (unchanged, changed)
    )
    assert [offset for offset, _ in after] == pytest.approx([offset for offset, _ in before])
    assert [score for _, score in after] == pytest.approx([score for _, score in before], abs=0.02)
    assert changed[-1] == unchanged[-1]


def test_a_changed_threshold_applies_from_then_on(web: TestClient) -> None:
    calibrated = stream(web)[0]["thresholds"]
    too_high = dict.fromkeys(calibrated, 0.95)
    assert [word for word, _ in words(stream(web, {0: too_high}))] == []
    assert [word for word, _ in words(stream(web, {2 * CHUNK * 25: too_high}))] == ["low", "mid"]
    events = stream(web, {0: too_high, CHUNK * 30: {}})
    assert [word for word, _ in words(events)] == ["mid", "high"]
    assert [one["thresholds"] for one in of_kind(events, "started")][2] == pytest.approx(calibrated)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([b"\0\0"], "CONFIG_EXPECTED_FIRST"),
        ([{"keywords": {}}], "CONFIG_EXPECTED_FIRST"),
        (["no json"], "BAD_CONFIG"),
        (["[" * 100_000], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000, "keywords": {"\ud800": 0.5}}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000, "keywords": {"low": "high"}}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 10}], "UNSUPPORTED_SAMPLE_RATE"),
        ([{"sample_rate_hz": 10**400}], "UNSUPPORTED_SAMPLE_RATE"),
        ([{"sample_rate_hz": 16000, "keywords": {"low": 1.5}}], "BAD_THRESHOLD"),
        ([{"sample_rate_hz": 16000, "keywords": {"low": 10**400}}], "BAD_THRESHOLD"),
        ([{"sample_rate_hz": 16000, "keywords": {"none": 0.5}}], "UNKNOWN_KEYWORD"),
        ([{"sample_rate_hz": 16000, "model": "none"}], "UNKNOWN_MODEL"),
        ([{"sample_rate_hz": 16000, "model": "none", "keywords": {"low": 0.5}}], "UNKNOWN_MODEL"),
        ([{"sample_rate_hz": 16000, "model": ["tiny"]}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000, "model": "\ud800"}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000, "models": ["tiny"] * 9, "keywords": {"low": 0.5}}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000, "scores": "no"}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000, "keyword": {"low": 0.5}}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000, "\ud800": 1}], "BAD_CONFIG"),
        ([{"sample_rate_hz": "16000"}], "CONFIG_EXPECTED_FIRST"),
        ([{"sample_rate_hz": 16000}, {"sample_rate_hz": 16000}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000}, {"end": False}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000}, {}], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000}, ""], "BAD_CONFIG"),
        ([{"sample_rate_hz": 16000}, b"\0"], "BAD_AUDIO"),
        ([{"sample_rate_hz": 16000}, bytes(websocket.MAX_MESSAGE_BYTES + 2)], "MESSAGE_TOO_LARGE"),
    ],
)
def test_an_invalid_message_ends_the_stream_with_a_reason(
    web: TestClient, messages: list[Any], reason: str
) -> None:
    with web.websocket_connect("/stream") as socket:
        for message in messages:
            if isinstance(message, bytes):
                socket.send_bytes(message)
            else:
                socket.send_text(message if isinstance(message, str) else json.dumps(message))
        last = receive_events(socket)[-1]
        status = "NOT_FOUND" if reason == "UNKNOWN_MODEL" else "INVALID_ARGUMENT"
        assert (last["status"], last["reason"]) == (status, reason)
        assert last["message"]
        assert socket.receive()["code"] == 1008


def test_a_device_can_select_a_model_and_omit_the_scores(web: TestClient) -> None:
    model = web.get("/info").json()["model"]
    with web.websocket_connect("/stream") as socket:
        socket.send_json({"sample_rate_hz": RATE_HZ, "model": model, "scores": False})
        socket.send_bytes(samples().tobytes())
        socket.send_json({"end": True})
        events = receive_events(socket)
    assert [word for word, _ in words(events)] == [word for _, word in WORDS]
    assert of_kind(events, "scores") == []
    assert events[0]["model"].startswith(f"{model} ")


def test_a_page_that_sends_nothing_is_disconnected(web: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "IDLE_TIMEOUT_S", 0.1)
    with web.websocket_connect("/stream") as socket:
        socket.send_json({"sample_rate_hz": RATE_HZ})
        assert receive_events(socket)[-1]["reason"] == "IDLE_STREAM"
        assert socket.receive()["code"] == 1013


def test_streams_over_the_limit_are_rejected_until_one_ends(web: TestClient) -> None:
    with web.websocket_connect("/stream"):
        with web.websocket_connect("/stream"), web.websocket_connect("/stream") as third:
            assert receive_events(third)[-1]["reason"] == "TOO_MANY_STREAMS"
            assert third.receive()["code"] == 1013
        assert stream(web)[-1]["event"] == "ended"


def test_without_a_grpc_server_a_page_receives_an_error() -> None:
    with (
        TestClient(make_app("127.0.0.1:1", sample=DEMO), headers=HOST) as web,
        web.websocket_connect("/stream") as socket,
    ):
        socket.send_json({"sample_rate_hz": RATE_HZ})
        last = receive_events(socket)[-1]
    assert last["status"] == "UNAVAILABLE"
    assert "no Earmark server answers" in last["message"]


def test_a_service_that_rejects_the_page_is_a_fault_of_the_server(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"somebody {hashlib.sha256(b'secret').hexdigest()}\n")
    with (
        serve_in_thread(model=(str(tiny_model_path),), token_file=str(tokens)) as closed,
        TestClient(make_app(closed, sample=DEMO), headers=HOST) as web,
        web.websocket_connect("/stream") as socket,
    ):
        socket.send_json({"sample_rate_hz": RATE_HZ})
        assert receive_events(socket)[-1]["reason"] == "MISSING_CREDENTIALS"
        assert socket.receive()["code"] == 1011
        assert web.post("/spot", files={"file": b"RIFF"}).status_code == 502


def test_a_service_that_returns_with_another_model_asks_for_a_new_stream(tmp_path: Path) -> None:
    port, (tiny, slow) = free_port(), (str(tiny_models.build(tmp_path, name)) for name in ("tiny", "slow"))
    with ExitStack() as web_and_page:
        with serve_in_thread(model=(tiny,), port=port, drain_grace_s=0.0, **ADMIT_ALWAYS) as address:
            web = web_and_page.enter_context(TestClient(make_app(address, sample=DEMO), headers=HOST))
            socket = web_and_page.enter_context(web.websocket_connect("/stream"))
            socket.send_json({"sample_rate_hz": RATE_HZ})
            assert socket.receive_json()["event"] == "started"
        with serve_in_thread(model=(slow,), port=port, **ADMIT_ALWAYS):
            assert receive_events(socket)[-1]["reason"] == "BAD_RESUME_TOKEN"
            assert socket.receive()["code"] == 1013


def test_a_page_that_reads_nothing_is_disconnected(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "IDLE_TIMEOUT_S", 0.1)
    app = make_app(address, sample=DEMO)
    incoming = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "[]"}]

    async def receive() -> dict[str, str]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await asyncio.Event().wait()

    async def scenario() -> None:
        async with app.router.lifespan_context(app) as state:
            headers = [(b"host", b"localhost")]
            scope = {
                "type": "websocket",
                "path": "/stream",
                "headers": headers,
                "scheme": "ws",
                "state": state,
            }
            async with asyncio.timeout(60):
                await app({**scope, "query_string": b"", "client": ("here", 1)}, receive, send)
            with state["stream_limit"].admit("here"):
                assert state["stream_limit"]._count_by_address.total() == 1

    asyncio.run(scenario())
