"""Streams and recordings that name several models, over gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server.inference import model_registry
from earmark_spotter import ModelError
from grpc import StatusCode
from support import tiny_model, tiny_models
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

BOTH = ["tiny", "slow"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("models")
    return tuple(tiny_models.build(folder, name) for name in tiny_models.VARIANTS)


def setting(keyword: str, model: str = "", **fields: Any) -> messages.KeywordSetting:
    return messages.KeywordSetting(keyword=keyword, model=model, **fields)


def test_one_stream_has_the_detections_of_all_its_models(paths: tuple[Path, ...]) -> None:
    async def scenario() -> None:
        async with serving(paths) as rig:
            events = await collect(rig.stream(config(models=BOTH), *chunks(pcm())))
            started = events[0].started
            assert [one.name for one in started.models] == BOTH
            assert (started.model, started.model_version) == ("tiny", "1.0.0")
            assert seconds(started.step_length) == 0.1
            assert seconds(started.receptive_field) == 1.5
            active = [(one.model, one.keyword) for one in started.keywords]
            assert active == [
                *(("tiny", word) for word in tiny_model.TONES_HZ),
                ("slow", "low"),
                ("slow", "mid"),
            ]

            found = detections(events)
            for name in BOTH:
                alone = detections(await collect(rig.stream(config(model=name), *chunks(pcm()))))
                assert {one.model for one in alone} == {name}
                for one in alone:
                    one.detection_id = f"{name}/{one.detection_id}"
                mine = [one for one in found if one.model == name]
                assert [(one.detection_id, one.end_offset) for one in mine] == [
                    (one.detection_id, one.end_offset) for one in alone
                ]
                assert len(alone) >= 3
            assert len({one.detection_id for one in found}) == len(found) == events[-1].ended.detection_count

            request = rpcs.SpotRequest(models=BOTH, audio_format=LINEAR16, audio=pcm())
            answer = await rig.stub.Spot(request, timeout=DEADLINE_S)
            assert [one.detection_id for one in answer.detections] == [one.detection_id for one in found]
            assert [one.name for one in answer.models] == BOTH
            assert answer.model == "tiny"

    run(scenario)


def test_keywords_can_be_those_of_one_model_or_of_all(paths: tuple[Path, ...]) -> None:
    keywords = [
        setting("low", threshold=0.7),
        setting("mid", "slow", threshold=0.8, refractory=duration(1)),
        setting("high"),
    ]

    async def scenario() -> None:
        async with serving(paths) as rig:
            events = await collect(rig.stream(config(models=BOTH, keywords=keywords), *chunks(pcm())))
            active = {
                (one.model, one.keyword): (round(one.threshold, 3), seconds(one.refractory))
                for one in events[0].started.keywords
            }
            assert active == {
                ("tiny", "low"): (0.7, 0.5),
                ("tiny", "high"): (0.6, 0.5),
                ("slow", "low"): (0.7, 0.5),
                ("slow", "mid"): (0.8, 1.0),
            }
            assert {(one.model, one.keyword) for one in detections(events)} == set(active)

    run(scenario)


def test_scores_name_their_model(paths: tuple[Path, ...]) -> None:
    async def scenario() -> None:
        async with serving(paths) as rig:
            request = config(models=["tiny", "narrow"], score_interval=duration(0.2))
            events = await collect(rig.stream(request, *chunks(pcm())))
            frames = [event.scores for event in events if event.WhichOneof("event") == "scores"]
            offsets = [seconds(one.offset) for one in frames]
            assert offsets == sorted(offsets)
            for name in ("tiny", "narrow"):
                assert sum(one.model == name for one in frames) >= 15

    run(scenario)


@pytest.mark.parametrize(
    ("fields", "expected", "field"),
    [
        ({"models": ["tiny", "nosuch"]}, (StatusCode.NOT_FOUND, "UNKNOWN_MODEL"), "models[1]"),
        ({"models": ["slow", "tiny", "slow"]}, (StatusCode.INVALID_ARGUMENT, "BAD_CONFIG"), "models[2]"),
        # The default model is `tiny`.
        ({"models": ["", "tiny"]}, (StatusCode.INVALID_ARGUMENT, "BAD_CONFIG"), "models[1]"),
        ({"models": ["tiny"] * 9}, (StatusCode.INVALID_ARGUMENT, "BAD_CONFIG"), "models"),
        ({"models": [f"m{i}" for i in range(1000)]}, (StatusCode.INVALID_ARGUMENT, "BAD_CONFIG"), "models"),
        ({"model": "tiny", "models": BOTH}, (StatusCode.INVALID_ARGUMENT, "BAD_CONFIG"), "models"),
        ({"model": "slow", "models": ["tiny"]}, (StatusCode.INVALID_ARGUMENT, "BAD_CONFIG"), "models"),
        (
            {"models": BOTH, "keywords": [setting("low"), setting("nosuch")]},
            (StatusCode.INVALID_ARGUMENT, "UNKNOWN_KEYWORD"),
            "keywords[1]",
        ),
        (
            {"models": BOTH, "keywords": [setting("low", "gated")]},
            (StatusCode.INVALID_ARGUMENT, "UNKNOWN_KEYWORD"),
            "keywords[0].model",
        ),
        (
            {"models": BOTH, "keywords": [setting("high", "slow")]},
            (StatusCode.INVALID_ARGUMENT, "UNKNOWN_KEYWORD"),
            "keywords[0]",
        ),
        (
            {"models": BOTH, "keywords": [setting("low"), setting("low", "slow")]},
            (StatusCode.INVALID_ARGUMENT, "UNKNOWN_KEYWORD"),
            "keywords[1]",
        ),
        (
            {"models": BOTH, "keywords": [setting("high")]},
            (StatusCode.INVALID_ARGUMENT, "UNKNOWN_KEYWORD"),
            "keywords",
        ),
        (
            {"models": BOTH, "keywords": [setting("mid", "slow", threshold=2), setting("low")]},
            (StatusCode.INVALID_ARGUMENT, "BAD_THRESHOLD"),
            "keywords[0]",
        ),
        (
            {"model": "tiny", "keywords": [setting("low", "slow")]},
            (StatusCode.INVALID_ARGUMENT, "UNKNOWN_KEYWORD"),
            "keywords[0].model",
        ),
    ],
)
def test_what_cannot_be_meant_is_rejected(
    paths: tuple[Path, ...], fields: dict[str, Any], expected: tuple[StatusCode, str], field: str
) -> None:
    async def scenario() -> None:
        async with serving(paths) as rig:
            failed = await failure(rig.stream(config(**fields)))
            assert (failed.code, failed.reason) == expected
            assert failed.fields == [f"config.{field}"]
            request = rpcs.SpotRequest(audio_format=LINEAR16, audio=bytes(100), **fields)
            failed = await failure(rig.stub.Spot(request, timeout=DEADLINE_S))
            assert (failed.code, failed.reason) == expected
            assert failed.fields == [field]

    run(scenario)


def test_one_name_in_models_is_that_model(paths: tuple[Path, ...]) -> None:
    async def scenario() -> None:
        async with serving(paths) as rig:
            for fields in ({"models": ["slow"]}, {"model": "slow", "models": ["slow"]}):
                events = await collect(rig.stream(config(**fields), *chunks(pcm())))
                assert [one.name for one in events[0].started.models] == ["slow"]
                assert not detections(events)[0].detection_id.startswith("slow/")

    run(scenario)


def test_a_stream_counts_once_for_each_of_its_models(paths: tuple[Path, ...]) -> None:
    async def open_stream(rig: Rig, names: list[str]) -> Any:
        call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
        await call.write(config(models=names))
        assert kinds([await call.read()]) == ["started"]
        return call

    async def scenario() -> None:
        for limits in ({"max_streams": 4}, {"max_streams": 9, "max_streams_per_client": 4}):
            async with serving(paths, **limits) as rig:
                first = await open_stream(rig, ["tiny", "slow", "gated"])
                await rig.used_slots(3)
                failed = await failure(rig.stream(config(models=BOTH)))
                assert failed.reason == "TOO_MANY_STREAMS"
                assert " has 3 streams open; its limit " in failed.message
                assert "is 4. This one counts as 2, because of its models." in failed.message
                assert kinds(await collect(rig.stream(config(model="slow")))) == ["started", "ended"]
                first.cancel()
                await rig.used_slots(0)
                await open_stream(rig, BOTH)

    run(scenario)


def test_a_stream_resumes_after_one_of_its_models_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_registry, "_CHECK_INTERVAL_S", 0.05)
    files = tuple(tiny_models.build(tmp_path, name) for name in BOTH)
    data = pcm()

    async def scenario() -> None:
        async with serving(files) as rig:
            events = await collect(rig.stream(config(models=BOTH), *chunks(data)))
            whole = [one.detection_id for one in detections(events)]
            place = [i for i, one in enumerate(events) if one.WhichOneof("event") == "progress"][1]
            progress = events[place].progress
            before = [one.detection_id for one in detections(events[:place])]

            document = {**tiny_model.metadata(), "name": "tiny", "version": "2.0.0"}
            tiny_model.build(tmp_path / "part", document=document)
            (tmp_path / "part").replace(files[0])
            async with asyncio.timeout(DEADLINE_S):
                request = rpcs.GetModelRequest(model="tiny")
                while (await rig.stub.GetModel(request)).model.version != "2.0.0":  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

            resume = rpcs.ResumePoint(start_offset=progress.replay_offset, resume_token=progress.resume_token)
            start = round(seconds(progress.replay_offset)) * 32_000
            again = await collect(rig.stream(config(models=BOTH, resume=resume), *chunks(data[start:])))
            assert [one.version for one in again[0].started.models] == ["1.0.0", "1.0.0"]
            assert before + [one.detection_id for one in detections(again)] == whole
            failed = await failure(rig.stream(config(models=BOTH[::-1], resume=resume)))
            assert (failed.reason, failed.fields) == ("BAD_RESUME_TOKEN", ["config.resume"])

    run(scenario)


def test_two_files_of_one_name_are_rejected_with_the_remedy(tmp_path: Path) -> None:
    files = (tiny_models.build(tmp_path, "tiny"), tiny_model.build(tmp_path / "other.onnx"))

    async def scenario() -> None:
        with pytest.raises(ModelError, match=r"other\.onnx has the name tiny, as .*tiny\.onnx has.*--name"):
            async with serving(files):
                pass

    run(scenario)


def test_all_words_are_detected_by_each_model_that_has_them(paths: tuple[Path, ...]) -> None:
    async def scenario() -> None:
        async with serving(paths) as rig:
            names = ["gated", "slow", "tiny"]
            found = detections(await collect(rig.stream(config(models=names), *chunks(pcm()))))
            for name, keywords in (
                ("tiny", tiny_model.TONES_HZ),
                ("gated", tiny_model.TONES_HZ),
                ("slow", ("low", "mid")),
            ):
                words = [one.keyword for one in found if one.model == name]
                assert words == [word for _, word in WORDS if word in keywords]

    run(scenario)


def test_a_drained_stream_moves_with_all_its_models(paths: tuple[Path, ...]) -> None:
    names = ["tiny", "slow", "gated", "narrow"]
    words = [(0.4 + 0.45 * i, ("low", "mid", "high")[i % 3]) for i in range(16)]
    data = pcm(words, 8)

    async def scenario() -> None:
        async with serving(paths) as other, serving(paths, drain_grace_s=DEADLINE_S) as rig:
            whole = detections(await collect(other.stream(config(models=names), *chunks(data))))
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config(models=names))
            for request in chunks(data[: int(3.13 * 32_000)]):  # in the middle of a word
                await call.write(request)
            seen = [await call.read()]
            while len(detections(seen)) < 10:
                seen.append(await call.read())
            draining = asyncio.ensure_future(rig.server.drain())
            while not seen[-1].progress.draining:
                seen.append(await call.read())
            progress = seen[-1].progress
            call.cancel()
            await draining
            resume = rpcs.ResumePoint(start_offset=progress.replay_offset, resume_token=progress.resume_token)
            start = round(seconds(progress.replay_offset)) * 32_000
            rest = await collect(other.stream(config(models=names, resume=resume), *chunks(data[start:])))
            moved = [*detections(seen), *detections(rest)]
            assert len(moved) == len(whole) > 25
            for name in names:
                assert [one.detection_id for one in moved if one.model == name] == [
                    one.detection_id for one in whole if one.model == name
                ]

    run(scenario)
