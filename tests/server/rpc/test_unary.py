from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_spotter import SpotterModel, classify
from grpc import StatusCode
from support import tiny_model
from support.deadlines import DEADLINE_S
from support.server_rig import (
    LINEAR16,
    WORDS,
    chunks,
    collect,
    config,
    detections,
    duration,
    failure,
    kinds,
    pcm,
    run,
    seconds,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path

    from support.server_rig import Rig

RECORDING = tiny_model.recording(WORDS, 4)


def file(kind: str, samples: np.ndarray = RECORDING, rate_hz: int = 16_000) -> bytes:
    """Return a recording as a file of a container, of 16 bits where it is not compressed."""
    buffer = io.BytesIO()
    codec = {"OGG": "OPUS", "MP3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=codec)
    return buffer.getvalue()


def spot(rig: Rig, **fields: Any) -> Any:
    return rig.stub.Spot(rpcs.SpotRequest(**fields), timeout=DEADLINE_S)


def form(encoding: str, rate_hz: int = 0, channels: int = 0) -> messages.AudioFormat:
    number = messages.Encoding.Value(f"ENCODING_{encoding}")
    return messages.AudioFormat(encoding=number, sample_rate_hertz=rate_hz, channel_count=channels)


def test_spot_returns_the_detections_of_a_stream(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            streamed = await collect(rig.stream(config(), *chunks(pcm())))
            call = spot(rig, audio_format=LINEAR16, audio=pcm(), request_id="whole")
            whole = await call
            assert list(whole.detections) == detections(streamed)
            assert len(whole.detections) == 4
            assert seconds(whole.audio_duration) == 4
            assert (whole.model, whole.model_version) == ("tiny", "1.0.0")
            assert dict(await call.trailing_metadata())["earmark-request-id"] == "whole"
            # The same 16-bit samples give the same detections in a file.
            in_file = await spot(rig, audio=file("FLAC", np.frombuffer(pcm(), "<i2")))
            assert in_file == whole
            await rig.used_slots(0)

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "stated"),
    [
        ("WAV", None),
        ("WAV", form("UNSPECIFIED")),
        ("WAV", form("WAV", 16_000, 1)),
        ("FLAC", None),
        ("FLAC", form("FLAC")),
        ("OGG", None),
        ("OGG", form("OGG_OPUS", 16_000)),
    ],
)
def test_spot_accepts_files(tiny_model_path: Path, kind: str, stated: messages.AudioFormat | None) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            answer = await spot(rig, audio=file(kind), audio_format=stated)
            assert [one.keyword for one in answer.detections] == [word for _, word in WORDS]
            assert seconds(answer.audio_duration) == pytest.approx(4, abs=0.01)

    run(scenario)


def test_spot_accepts_other_rates_and_channels_in_files(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            samples = tiny_model.recording(WORDS, 4, rate_hz=44_100)
            answer = await spot(rig, audio=file("WAV", np.stack([samples, samples], axis=1), 44_100))
            assert [one.keyword for one in answer.detections] == [word for _, word in WORDS]

    run(scenario)


def test_spot_detects_only_the_selected_keywords(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            wanted = [messages.KeywordSetting(keyword="low", refractory=duration(10))]
            answer = await spot(rig, audio=file("WAV"), keywords=wanted)
            assert [one.keyword for one in answer.detections] == ["low"]

    run(scenario)


@pytest.mark.parametrize("word", ["low", "mid", "high"])
def test_classify_returns_the_scores_of_the_library(tiny_model_path: Path, word: str) -> None:
    async def scenario() -> None:
        samples = np.frombuffer(pcm([(0.3, word)], 1), "<i2").astype(np.float32) / 32768
        model = SpotterModel.load(tiny_model_path)
        expected = dict(zip(tiny_model.LABELS, classify(model, samples).tolist(), strict=True))
        async with serving(tiny_model_path) as rig:
            request = rpcs.ClassifyRequest(audio_format=LINEAR16, audio=pcm([(0.3, word)], 1))
            answer = await rig.stub.Classify(request, timeout=DEADLINE_S)
            found = {one.label: one.score for one in answer.scores}
            assert found == pytest.approx(expected, abs=1e-4)
            scores = [one.score for one in answer.scores]
            assert scores == sorted(scores, reverse=True)
            assert answer.scores[0].label == word
            assert seconds(answer.audio_duration) == 1
            assert 0 < seconds(answer.processing_duration) < DEADLINE_S
            assert (answer.model, answer.model_version) == ("tiny", "1.0.0")

    run(scenario)


def test_classify_accepts_a_clip_shorter_than_a_step(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            request = rpcs.ClassifyRequest(audio_format=LINEAR16, audio=bytes(20))
            answer = await rig.stub.Classify(request, timeout=DEADLINE_S)
            assert answer.scores[0].label == "_silence_"

    run(scenario)


WAV_16K = file("WAV")
BAD_RECORDINGS: list[Any] = [
    pytest.param({"audio": b""}, "BAD_AUDIO", "audio", id="empty"),
    pytest.param({"audio": b"", "audio_format": LINEAR16}, "BAD_AUDIO", "audio", id="empty, raw"),
    pytest.param({"audio": b"Hello, this is text.\n" * 50}, "BAD_AUDIO", "audio", id="a text file"),
    pytest.param({"audio": b"RIFF" + bytes(100)}, "BAD_AUDIO", "audio", id="not a WAV"),
    pytest.param({"audio": file("FLAC")[:300] + bytes(5000)}, "BAD_AUDIO", "audio", id="a damaged FLAC"),
    pytest.param({"audio": file("WAV", RECORDING[:0])}, "BAD_AUDIO", "audio", id="a WAV without samples"),
    pytest.param(
        {"audio": WAV_16K, "audio_format": form("FLAC")}, "BAD_AUDIO", "audio", id="a WAV declared as FLAC"
    ),
    pytest.param(
        {"audio": WAV_16K, "audio_format": form("WAV", 8000)},
        "UNSUPPORTED_SAMPLE_RATE",
        "audio",
        id="another rate",
    ),
    pytest.param(
        {"audio": WAV_16K, "audio_format": form("WAV", 0, 2)}, "BAD_AUDIO", "audio", id="other channels"
    ),
    pytest.param(
        {"audio": file("WAV", RECORDING, 4000)}, "UNSUPPORTED_SAMPLE_RATE", "audio", id="a WAV of 4 kHz"
    ),
    pytest.param(
        {"audio": pcm(), "audio_format": form("LINEAR16")},
        "UNSUPPORTED_SAMPLE_RATE",
        "audio_format.sample_rate_hertz",
        id="raw without a rate",
    ),
    pytest.param(
        {"audio": pcm(), "audio_format": messages.AudioFormat(encoding=42)},
        "UNSUPPORTED_ENCODING",
        "audio_format.encoding",
        id="an unknown encoding",
    ),
    pytest.param({"audio": b"\0\0\0", "audio_format": LINEAR16}, "BAD_AUDIO", "", id="half a sample"),
    pytest.param(
        {"audio": struct.pack("<2f", 0, float("nan")), "audio_format": form("FLOAT32", 16_000)},
        "BAD_AUDIO",
        "",
        id="not a number",
    ),
    pytest.param({"audio": WAV_16K, "request_id": "\u00e9"}, "BAD_CONFIG", "request_id", id="request id"),
    pytest.param({"audio": WAV_16K, "model": "big"}, "UNKNOWN_MODEL", "model", id="unknown model"),
    pytest.param(
        {"audio": bytes(2 * 16_000 * 11), "audio_format": LINEAR16},
        "MESSAGE_TOO_LARGE",
        "audio",
        id="11 s, raw",
    ),
    pytest.param(
        {"audio": file("FLAC", np.zeros(16_000 * 11, np.float32))},
        "MESSAGE_TOO_LARGE",
        "audio",
        id="11 s of FLAC",
    ),
    pytest.param({"audio": bytes(1_000_001)}, "MESSAGE_TOO_LARGE", "", id="a megabyte"),
]


@pytest.mark.parametrize(("fields", "reason", "field"), BAD_RECORDINGS)
@pytest.mark.parametrize("method", ["Spot", "Classify"])
def test_an_invalid_recording_gets_an_error(
    tiny_model_path: Path, method: str, fields: dict[str, Any], reason: str, field: str
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_recording_s=10, max_message_bytes=1_000_000) as rig:
            request = (rpcs.SpotRequest if method == "Spot" else rpcs.ClassifyRequest)(**fields)
            failed = await failure(getattr(rig.stub, method)(request, timeout=DEADLINE_S))
            code = StatusCode.NOT_FOUND if reason == "UNKNOWN_MODEL" else StatusCode.INVALID_ARGUMENT
            assert (failed.code, failed.reason) == (code, reason)
            assert failed.fields == ([field] if field else [])
            assert failed.trailers["earmark-request-id"]
            await rig.used_slots(0)

    run(scenario)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_truncated_recording_gets_the_result_of_what_came_and_a_warning(
    tiny_model_path: Path, kind: str
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            whole = await spot(rig, audio=file(kind))
            assert not whole.warnings
            data = file(kind)
            cut = data[: len(data) * 3 // 4]
            spotted = await spot(rig, audio=cut)
            classified = await rig.stub.Classify(rpcs.ClassifyRequest(audio=cut), timeout=DEADLINE_S)
            for response in (spotted, classified):
                assert [warning.reason for warning in response.warnings] == ["RECORDING_INCOMPLETE"]
                assert "truncated" in response.warnings[0].message
            assert 0 < len(spotted.detections) < len(whole.detections)
            kept = [each.detection_id for each in spotted.detections]
            assert kept == [each.detection_id for each in whole.detections[: len(kept)]]

    run(scenario)


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64", "RF64", "MP3"])
def test_spot_accepts_every_format_that_the_client_reads(tiny_model_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            expected = await spot(rig, audio=file("WAV"))
            response = await spot(rig, audio=file(kind))
            assert [each.keyword for each in response.detections] == [
                each.keyword for each in expected.detections
            ]
            assert not response.warnings

    run(scenario)


def test_spot_rejects_the_keywords_that_a_stream_rejects(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            keywords = [messages.KeywordSetting(keyword="low"), messages.KeywordSetting(keyword="xyzzy")]
            failed = await failure(spot(rig, audio=WAV_16K, keywords=keywords))
            assert (failed.reason, failed.fields) == ("UNKNOWN_KEYWORD", ["keywords[1]"])
            keywords = [messages.KeywordSetting(keyword="low", threshold=2)]
            failed = await failure(spot(rig, audio=WAV_16K, keywords=keywords))
            assert (failed.reason, failed.fields) == ("BAD_THRESHOLD", ["keywords[0]"])

    run(scenario)


def test_recordings_above_the_limit_are_rejected_and_streams_continue(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path, max_calls=2) as rig:
            stream = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await stream.write(config())
            long = rpcs.SpotRequest(audio=bytes(2 * 16_000 * 200), audio_format=LINEAR16)
            calls = [rig.stub.Spot(long, timeout=DEADLINE_S) for _ in range(6)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            rejected = [one for one in results if isinstance(one, Exception)]
            assert rejected
            assert len(rejected) < 6
            for call, result in zip(calls, results, strict=True):
                if result in rejected:
                    failed = await failure(call)
                    assert (failed.code, failed.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
                    assert failed.retry_s
            for request in chunks(pcm()):
                await stream.write(request)
            await stream.done_writing()
            assert len(detections(await collect(stream))) == 4

    run(scenario)


@pytest.mark.slow
def test_long_recordings_do_not_delay_a_stream(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            # Faint noise: digital silence would cost nothing.
            noise = np.random.default_rng(0).integers(-1, 2, 16_000 * 250).astype(np.int16)
            long = rpcs.SpotRequest(audio=file("FLAC", noise))
            calls = [asyncio.ensure_future(rig.stub.Spot(long, timeout=DEADLINE_S)) for _ in range(4)]
            events = await collect(rig.stream(config(), *chunks(pcm())))
            assert kinds(events)[-1] == "ended"
            # The short stream, which started last, has ended before the long recordings.
            assert not any(call.done() for call in calls)
            for call in calls:
                assert seconds((await call).audio_duration) == 250

    run(scenario)


def test_models_are_listed_and_described(tiny_model_path: Path, tmp_path: Path) -> None:
    document = tiny_model.metadata()
    document["name"] = "second"
    second = tiny_model.build(tmp_path / "second.onnx", document=document)

    async def scenario() -> None:
        async with serving((tiny_model_path, second)) as rig:
            models = (await rig.stub.ListModels(rpcs.ListModelsRequest())).models
            assert [(one.name, one.default) for one in models] == [("tiny", True), ("second", False)]
            tiny = models[0]
            assert [one.keyword for one in tiny.keywords] == ["low", "mid", "high"]
            assert tiny.keywords[0].threshold == pytest.approx(0.6)
            assert seconds(tiny.keywords[0].refractory) == 0.5
            assert list(tiny.labels) == list(tiny_model.LABELS)
            assert tiny.sample_rate_hertz == 16_000
            assert tiny.metrics[0].name == "clip_accuracy"
            assert tiny.training_sources[0].license == "CC0-1.0"
            assert tiny.sha256 == SpotterModel.load(tiny_model_path).sha256

            for name, expected in (("", "tiny"), ("second", "second")):
                got = await rig.stub.GetModel(rpcs.GetModelRequest(model=name))
                assert (got.model.name, got.model.default) == (expected, expected == "tiny")
            failed = await failure(rig.stub.GetModel(rpcs.GetModelRequest(model="third")))
            assert (failed.code, failed.reason) == (StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
            assert failed.fields == ["model"]
            assert "tiny, second" in failed.message

            # Both models process streams, each with its own states.
            for name in ("tiny", "second"):
                events = await collect(rig.stream(config(model=name), *chunks(pcm())))
                assert events[0].started.model == name
                assert len(detections(events)) == 4

    run(scenario)


def test_invalid_recordings_leave_no_audio_in_the_log(
    tiny_model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            await failure(spot(rig, audio=b"secret words" * 100))

    with caplog.at_level(logging.DEBUG, "earmark_server"):
        run(scenario)
    written = json.dumps([getattr(record, "earmark", {}) for record in caplog.records])
    assert "BAD_AUDIO" in written
    assert "secret" not in written + caplog.text
