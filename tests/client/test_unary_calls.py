"""Unary calls of both clients, to a real server with a tiny model."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark_client import (
    Client,
    Detection,
    Health,
    InvalidRequestError,
    RecordingError,
    SyncClient,
    UnknownModelError,
)
from support import tiny_model
from support.both_clients import DRIVERS, Driver

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 16_000
WORDS = [(0.5, "low"), (1.5, "mid"), (2.5, "high"), (4.2, "low")]
RECORDING = tiny_model.recording(WORDS, 5.0)

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])


@both
def test_spot_returns_the_detections_of_a_stream(client: Driver, address: str, tmp_path: Path) -> None:
    events = client.events(address, [RECORDING], sample_rate_hz=RATE_HZ)
    streamed = [event.id for event in events if isinstance(event, Detection)]
    path = tmp_path / "words.wav"
    soundfile.write(path, (RECORDING * 32768).round().astype(np.int16), RATE_HZ)
    for audio, settings in [
        (path, {}),
        (str(path), {}),
        (path.read_bytes(), {}),
        (RECORDING, {"sample_rate_hz": RATE_HZ}),
    ]:
        result = client.call(address, "spot", audio, **settings)
        assert [detection.id for detection in result.detections] == streamed
        assert (result.audio_s, result.model, result.model_version) == (5.0, "tiny", "1.0.0")
    only_low = client.call(address, "spot", path, keywords=["low"])
    assert [detection.keyword for detection in only_low.detections] == ["low", "low"]


@both
def test_classify_returns_all_classes_with_the_best_first(client: Driver, address: str) -> None:
    clip = tiny_model.recording([(0.3, "mid")], 0.6)
    result = client.call(address, "classify", clip, sample_rate_hz=RATE_HZ)
    assert result.label == "mid"
    assert result.audio_s == 0.6
    assert 0 < result.processing_s < 10
    scores = [one.score for one in result.scores]
    assert scores == sorted(scores, reverse=True)
    assert {one.label for one in result.scores} == set(tiny_model.LABELS)


@both
def test_an_array_without_a_sample_rate_and_a_text_file_are_rejected(
    client: Driver, address: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequestError, match="sample_rate_hz"):
        client.call(address, "spot", RECORDING)
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    with pytest.raises(InvalidRequestError) as rejected:
        client.call(address, "classify", text)
    assert rejected.value.reason == "BAD_AUDIO"


@both
def test_a_file_that_cannot_be_opened_is_reported_with_its_name(client: Driver, address: str) -> None:
    for name, problem in [
        ("absent.wav", "absent.wav: No such file"),
        ("a\0b", "a\0b: embedded null"),
        ("", "the name of a recording is empty"),
        ("http://host/a.wav", "this is a web address: download"),
    ]:
        with pytest.raises(RecordingError, match=problem):
            client.call(address, "spot", name)


@both
def test_models_are_listed_and_described(client: Driver, address: str) -> None:
    (listed,) = client.call(address, "list_models")
    assert listed == client.call(address, "get_model") == client.call(address, "get_model", "tiny")
    assert listed.default
    assert [active.keyword for active in listed.keywords] == ["low", "mid", "high"]
    assert listed.labels == tiny_model.LABELS
    assert (listed.sample_rate_hz, listed.step_s, listed.receptive_field_s) == (16_000, 0.02, 0.07)
    assert listed.metrics[0].name == "clip_accuracy"
    assert listed.training_sources[0].license == "CC0-1.0"
    assert len(listed.sha256) == 64
    with pytest.raises(UnknownModelError):
        client.call(address, "get_model", "other")


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    def signature(method: Any) -> list[tuple[str, Any]]:
        return [(one.name, one.default) for one in inspect.signature(method).parameters.values()]

    methods = ["__init__", "stream", "spot", "classify", "list_models", "get_model", "health", "watch_health"]
    for name in methods:
        assert signature(getattr(Client, name)) == signature(getattr(SyncClient, name))
    public = {name for name in dir(Client) if not name.startswith("_")}
    assert public == {name for name in dir(SyncClient) if not name.startswith("_")}


def test_a_client_works_in_a_second_event_loop(address: str) -> None:
    client = Client(address)

    async def detections() -> int:
        assert await client.health() is Health.SERVING
        audio = [RECORDING]
        return sum(
            [isinstance(event, Detection) async for event in client.stream(audio, sample_rate_hz=RATE_HZ)]
        )

    assert asyncio.run(detections()) == asyncio.run(detections()) > 0
