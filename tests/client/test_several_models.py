"""Streams and recordings with several models, through both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from earmark_client import (
    ActiveModel,
    Detection,
    IncompatibleServerError,
    InvalidRequestError,
    KeywordSetting,
    Scores,
    Started,
    UnknownModelError,
)
from earmark_server.embedded import serve_in_thread
from support import tiny_model, tiny_models
from support.both_clients import DRIVERS, Driver
from support.environment import ADMIT_ALWAYS
from support.misbehaving_server import detection, ended, misbehaving_server, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.misbehaving_server import MisbehavingServer, Response

RATE_HZ = 16_000
WORDS = [(0.5, "low"), (1.5, "mid"), (2.5, "high")]
RECORDING = tiny_model.recording(WORDS, 4.0)
MODELS = ["tiny", "slow"]

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    paths = tuple(str(tiny_models.build(folder, name)) for name in MODELS)
    with serve_in_thread(model=paths, **ADMIT_ALWAYS) as address:
        yield address


def stream(client: Driver, address: str, **settings: Any) -> list[Any]:
    chunks = [RECORDING[start : start + 1600] for start in range(0, len(RECORDING), 1600)]
    return list(client.events(address, chunks, sample_rate_hz=RATE_HZ, **settings))


def detected(events: list[Any]) -> list[tuple[str, str]]:
    return [(one.model, one.keyword) for one in events if isinstance(one, Detection)]


@both
def test_detections_and_scores_name_their_model(client: Driver, address: str) -> None:
    events = stream(client, address, models=MODELS, score_interval_s=0.1)
    first = events[0]
    assert isinstance(first, Started)
    assert first.models == (ActiveModel("tiny", "1.0.0", 0.02, 0.07), ActiveModel("slow", "1.0.0", 0.1, 1.5))
    assert (first.model, first.step_s, first.receptive_field_s) == ("tiny", 0.1, 1.5)
    assert {one.model for one in first.keywords} == set(MODELS)
    found = detected(events)
    assert sorted(found) == sorted(
        [("tiny", "low"), ("tiny", "mid"), ("tiny", "high"), ("slow", "low"), ("slow", "mid")]
    )
    scores = [(one.model, round(one.offset_s, 3)) for one in events if isinstance(one, Scores)]
    assert scores == [(name, round(0.1 * i, 3)) for i in range(1, 41) for name in MODELS]
    assert len(scores) == len(set(scores))

    result = client.call(address, "spot", RECORDING, sample_rate_hz=RATE_HZ, models=MODELS)
    assert [(one.model, one.keyword) for one in result.detections] == found
    assert [one.name for one in result.models] == MODELS


@both
def test_keyword_settings_name_their_model(client: Driver, address: str) -> None:
    keywords = [KeywordSetting("low", 0.7, model="slow"), "high"]
    events = stream(client, address, models=MODELS, keywords=keywords)
    assert detected(events) == [("slow", "low"), ("tiny", "high")]


@both
def test_one_model_is_named_as_every_server_understands(client: Driver, address: str) -> None:
    for settings in ({"models": ["slow"]}, {"models": "slow"}, {"model": "slow", "models": ("slow",)}):
        events = stream(client, address, **settings)
        assert [one.name for one in events[0].models] == ["slow"]
        assert detected(events) == [("slow", "low"), ("slow", "mid")]


@both
def test_models_that_cannot_be_meant(client: Driver, address: str) -> None:
    for settings in (
        {"model": "tiny", "models": MODELS},
        {"models": b"tiny"},
        {"models": 3},
        {"models": [3]},
    ):
        with pytest.raises(InvalidRequestError) as raised:
            stream(client, address, **settings)
        assert raised.value.reason == "BAD_CONFIG"
    with pytest.raises(UnknownModelError, match="nosuch"):
        stream(client, address, models=["tiny", "nosuch"])
    with pytest.raises(InvalidRequestError, match="slow twice"):
        stream(client, address, models=["slow", "tiny", "slow"])


@both
def test_a_server_that_ignores_the_models_is_noticed(client: Driver) -> None:
    def old(_: MisbehavingServer, __: Any) -> Iterator[Response]:
        yield started()
        yield detection()
        yield ended()

    with misbehaving_server(old) as server:
        with pytest.raises(IncompatibleServerError, match="several models"):
            stream(client, server.address, models=MODELS)
        events = stream(client, server.address, models=["model"])
        assert events[0].models == (ActiveModel("model", "1.0.0", 0.04, 0.0),)
        assert detected(events) == [("model", "yes")]
