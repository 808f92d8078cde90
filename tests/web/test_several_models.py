"""Several models, over HTTP and through the WebSocket."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
import soundfile
from earmark_server.embedded import serve_in_thread
from earmark_web.app import make_app
from starlette.testclient import TestClient
from support import tiny_models
from support.earmark_command import RATE_HZ, samples
from support.environment import ADMIT_ALWAYS
from support.paths import DEMO

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = ["tiny", "slow"]
WORDS = [("slow", "low"), ("slow", "mid"), ("tiny", "high"), ("tiny", "low"), ("tiny", "mid")]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    paths = tuple(str(tiny_models.build(folder, name)) for name in BOTH)
    with (
        serve_in_thread(model=paths, **ADMIT_ALWAYS) as address,
        TestClient(make_app(address, sample=DEMO), headers={"host": "localhost"}) as client,
    ):
        yield client


def wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples(), RATE_HZ, format="WAV")
    return file.getvalue()


def stream(web: TestClient, config: dict[str, Any], change: dict[str, float] | None = None) -> list[Any]:
    audio = samples() // 10  # at this volume, the scores are about 0.9
    with web.websocket_connect("/stream") as socket:
        socket.send_json({"sample_rate_hz": RATE_HZ, **config})
        socket.send_bytes(audio[: 2 * RATE_HZ].tobytes())
        if change is not None:
            socket.send_json({"keywords": change})
        socket.send_bytes(audio[2 * RATE_HZ :].tobytes())
        socket.send_json({"end": True})
        events = [socket.receive_json()]
        while events[-1]["event"] not in {"ended", "error"}:
            events.append(socket.receive_json())
        return events


def detected(events: list[Any]) -> list[tuple[str, str]]:
    return [(one["model"], one["keyword"]) for one in events if one["event"] == "detection"]


def test_spot_with_several_models(web: TestClient) -> None:
    response = web.post("/spot", files={"file": wav()}, data={"model": BOTH})
    found = response.json()["detections"]
    assert sorted((one["model"], one["keyword"]) for one in found) == WORDS
    response = web.post("/predict", files={"file": wav()}, data={"model": BOTH})
    assert (response.status_code, response.json()["error"]["reason"]) == (400, "BAD_CONFIG")


def test_a_socket_with_several_models(web: TestClient) -> None:
    events = stream(web, {"models": BOTH})
    assert events[0]["models"] == ["tiny 1.0.0", "slow 1.0.0"]
    assert {(one["model"], one["keyword"]) for one in events[0]["keywords"]} == set(WORDS)
    assert sorted(detected(events)) == WORDS
    scores = [one for one in events if one["event"] == "scores"]
    for name, count in (("tiny", 100), ("slow", 40)):
        offsets = [one["offset_s"] for one in scores if one["model"] == name]
        assert offsets == sorted(set(offsets))
        assert len(offsets) == count


def test_thresholds_of_one_model_change_while_the_stream_runs(web: TestClient) -> None:
    events = stream(web, {"models": BOTH, "keywords": {"slow/low": 0.99}}, {"tiny/high": 0.99})
    assert sorted(detected(events)) == [("slow", "mid"), ("tiny", "low"), ("tiny", "mid")]
    started = [one for one in events if one["event"] == "started"]
    in_force = [
        {(each["model"], each["keyword"]): round(each["threshold"], 3) for each in one["keywords"]}
        for one in started
    ]
    assert (in_force[0]["slow", "low"], in_force[0]["tiny", "low"]) == (0.99, 0.6)
    assert (in_force[1]["slow", "low"], in_force[1]["tiny", "high"]) == (0.6, 0.99)


@pytest.mark.parametrize("more", [{}, {"keywords": {"slow/low": 0.6}}])
def test_an_empty_name_is_the_default_model_of_the_server(web: TestClient, more: dict[str, Any]) -> None:
    events = stream(web, {"models": ["", "slow"], **more})
    assert events[0]["models"] == ["tiny 1.0.0", "slow 1.0.0"]
    assert sorted(detected(events)) == WORDS
    assert stream(web, {"models": [""]})[0]["models"] == ["tiny 1.0.0"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"models": "tiny"}, "BAD_CONFIG"),
        ({"models": ["tiny", 3]}, "BAD_CONFIG"),
        ({"model": "tiny", "models": BOTH}, "BAD_CONFIG"),
        ({"models": ["tiny", "tiny"]}, "BAD_CONFIG"),
        ({"models": ["", "tiny"]}, "BAD_CONFIG"),
        ({"models": ["tiny", "nosuch"]}, "UNKNOWN_MODEL"),
        ({"models": BOTH, "keywords": {"nosuch": 0.5}}, "UNKNOWN_KEYWORD"),
    ],
)
def test_what_cannot_be_meant(web: TestClient, config: dict[str, Any], reason: str) -> None:
    event = stream(web, config)[-1]
    assert (event["event"], event["reason"]) == ("error", reason)
