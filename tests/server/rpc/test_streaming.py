from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark_spotter import Spotter, SpotterModel
from support import tiny_model
from support.server_rig import (
    WORDS,
    audio,
    chunks,
    collect,
    config,
    detections,
    duration,
    kinds,
    pcm,
    run,
    seconds,
    serving,
    silence,
)

if TYPE_CHECKING:
    from pathlib import Path


def detections_of_library(model_path: Path, data: bytes) -> list[tuple[str, float, float, float]]:
    spotter = Spotter(SpotterModel.load(model_path))
    found = spotter.feed(data) + spotter.flush()
    return [(one.id, one.start_sample / 16_000, one.end_sample / 16_000, one.confidence) for one in found]


def plain(found: list[messages.KeywordDetection]) -> list[tuple[str, float, float, float]]:
    return [
        (one.detection_id, seconds(one.start_offset), seconds(one.end_offset), one.confidence)
        for one in found
    ]


def assert_same(
    found: list[messages.KeywordDetection], expected: list[tuple[str, float, float, float]]
) -> None:
    assert [one[0] for one in plain(found)] == [one[0] for one in expected]
    for mine, theirs in zip(plain(found), expected, strict=True):
        assert mine[1:] == pytest.approx(theirs[1:], abs=1e-4)


def test_a_stream_starts_reports_its_keywords_and_ends(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = rig.stream(config(request_id="kitchen 1"), *chunks(pcm()))
            events = await collect(call)
            started = events[0].started
            assert (started.model, started.model_version, started.request_id) == (
                "tiny",
                "1.0.0",
                "kitchen 1",
            )
            assert [one.keyword for one in started.keywords] == ["low", "mid", "high"]
            assert started.keywords[0].threshold == pytest.approx(0.6)
            assert seconds(started.keywords[0].refractory) == 0.5
            assert seconds(started.step_length) == 0.02
            assert seconds(started.receptive_field) == pytest.approx(0.07)

            found = detections(events)
            assert [one.keyword for one in found] == [word for _, word in WORDS]
            for one, (start_s, _) in zip(found, WORDS, strict=True):
                assert seconds(one.start_offset) - 0.05 < start_s < seconds(one.end_offset)
                assert seconds(one.start_offset) < start_s + 0.06 < seconds(one.end_offset) + 0.05

            assert kinds(events)[-1] == "ended"
            assert seconds(events[-1].ended.audio_duration) == 4.0
            assert events[-1].ended.detection_count == len(found)
            assert dict(await call.trailing_metadata())["earmark-request-id"] == "kitchen 1"

    run(scenario)


@pytest.mark.parametrize("size", [3200, 320, 641, 64_001])
def test_any_chunk_size_gives_the_detections_of_the_library(tiny_model_path: Path, size: int) -> None:
    async def scenario() -> None:
        data = pcm()
        async with serving(tiny_model_path) as rig:
            events = await collect(rig.stream(config(), *chunks(data, size)))
            assert_same(detections(events), detections_of_library(tiny_model_path, data))

    run(scenario)


def test_started_is_sent_before_any_audio_arrives(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = rig.stub.StreamingSpot()
            await call.write(config())
            assert (await call.read()).WhichOneof("event") == "started"
            call.cancel()

    run(scenario)


def test_a_detection_is_sent_while_the_stream_continues(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = rig.stub.StreamingSpot()
            await call.write(config())
            await call.read()
            await call.write(audio(pcm([(0.3, "mid")], 0.6)))
            assert (await call.read()).detection.keyword == "mid"
            await call.done_writing()
            assert (await call.read()).ended.detection_count == 1

    run(scenario)


def test_a_stream_without_audio_ends(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            events = await collect(rig.stream(config()))
            assert kinds(events) == ["started", "ended"]
            assert seconds(events[1].ended.audio_duration) == 0

    run(scenario)


def test_a_keyword_at_the_very_end_is_detected(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            events = await collect(rig.stream(config(), *chunks(pcm([(0.44, "high")], 0.5))))
            (found,) = detections(events)
            assert found.keyword == "high"
            assert seconds(found.end_offset) <= 0.5

    run(scenario)


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "channels"),
    [
        ("LINEAR16", 8000, 1),
        ("LINEAR16", 48_000, 2),
        ("FLOAT32", 44_100, 1),
        ("MULAW", 8000, 1),
        ("ALAW", 16_000, 3),
    ],
)
def test_every_encoding_rate_and_channel_count_is_accepted(
    tiny_model_path: Path, encoding: str, rate_hz: int, channels: int
) -> None:
    async def scenario() -> None:
        samples = tiny_model.recording(WORDS, 4, rate_hz=rate_hz)
        samples = np.repeat(samples, channels)
        if encoding == "LINEAR16":
            data = (samples * 32767).astype("<i2").tobytes()
        elif encoding == "FLOAT32":
            data = samples.astype("<f4").tobytes()
        else:
            from earmark_spotter.audio import alaw_table, mulaw_table

            table = mulaw_table() if encoding == "MULAW" else alaw_table()
            order = np.argsort(table, kind="stable")
            data = order[np.searchsorted(table[order], samples).clip(0, 255)].astype(np.uint8).tobytes()
        form = messages.AudioFormat(
            encoding=messages.Encoding.Value(f"ENCODING_{encoding}"),
            sample_rate_hertz=rate_hz,
            channel_count=channels,
        )
        async with serving(tiny_model_path) as rig:
            events = await collect(rig.stream(config(audio_format=form), *chunks(data, 1001)))
            assert [one.keyword for one in detections(events)] == [word for _, word in WORDS]
            assert seconds(events[-1].ended.audio_duration) == pytest.approx(4.0)

    run(scenario)


def test_silence_equals_zeros(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            word = pcm([(0.2, "low")], 0.5, noise=0)
            sent = await collect(
                rig.stream(config(), audio(word), *chunks(bytes(2 * 16_000 * 90), 960_000), audio(word))
            )
            skipped = await collect(rig.stream(config(), audio(word), silence(60), silence(30), audio(word)))
            assert plain(detections(skipped)) == plain(detections(sent))
            assert len(detections(skipped)) == 2
            assert seconds(skipped[-1].ended.audio_duration) == 91

    run(scenario)


def test_a_model_with_longer_steps_gives_the_same_detections(tiny_model_path: Path, tmp_path: Path) -> None:
    document = tiny_model.metadata()
    document["step_samples"] = 1600
    long_steps = tiny_model.build(tmp_path / "long.onnx", document=document)

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig, serving(long_steps) as other:
            requests = [config(), *chunks(pcm(), 700), silence(100), audio(pcm([(0.2, "low")], 0.5))]
            events = await collect(other.stream(*requests))
            assert seconds(events[0].started.step_length) == pytest.approx(0.1)
            assert plain(detections(events)) == plain(detections(await collect(rig.stream(*requests))))
            assert len(detections(events)) == 5

    run(scenario)


def test_selected_keywords_have_their_own_settings(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            wanted = [
                messages.KeywordSetting(keyword="high", threshold=0.5),
                messages.KeywordSetting(keyword="low", refractory=duration(5)),
            ]
            events = await collect(rig.stream(config(keywords=wanted), *chunks(pcm())))
            in_force = {one.keyword: one for one in events[0].started.keywords}
            assert set(in_force) == {"high", "low"}
            assert in_force["high"].threshold == 0.5
            assert seconds(in_force["low"].refractory) == 5
            # The second "low" comes within the refractory time of the first.
            assert [one.keyword for one in detections(events)] == ["low", "high"]

    run(scenario)


def test_scores_are_sent_at_every_interval_of_audio(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            # 90 ms are rounded up to whole steps of 20 ms.
            request = config(score_interval=duration(0.09))
            one_way = await collect(rig.stream(request, *chunks(pcm(), 3200)))
            frames = [event.scores for event in one_way if event.WhichOneof("event") == "scores"]
            assert [seconds(frame.offset) for frame in frames] == pytest.approx(np.arange(1, 41) / 10)
            assert [one.label for one in frames[0].scores] == list(tiny_model.LABELS)
            for frame in frames:
                assert sum(one.score for one in frame.scores) == pytest.approx(1, abs=1e-3)

            other_way = await collect(rig.stream(request, *chunks(pcm(), 50_000)))
            assert kinds(other_way) == kinds(one_way)

    run(scenario)


def test_progress_is_sent_at_every_interval_of_audio(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            for interval_s, count in ((None, 4), (0.5, 8), (3, 1)):
                fields = {} if interval_s is None else {"progress_interval": duration(interval_s)}
                events = await collect(rig.stream(config(**fields), *chunks(pcm())))
                reports = [event.progress for event in events if event.WhichOneof("event") == "progress"]
                assert len(reports) == count
                for number, progress in enumerate(reports, 1):
                    assert seconds(progress.received_offset) >= number * (interval_s or 1)
                    assert seconds(progress.decided_offset) <= seconds(progress.received_offset)
                    assert seconds(progress.replay_offset) <= seconds(progress.decided_offset)
                    assert progress.resume_token
                    assert not progress.draining

    run(scenario)


def test_a_broken_stream_resumes_on_another_server(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        data = pcm([(0.4 + 0.45 * i, ("low", "mid", "high")[i % 3]) for i in range(16)], 8)
        request = {"progress_interval": duration(0.3), "score_interval": duration(0.1)}
        async with serving(tiny_model_path) as one, serving(tiny_model_path) as other:
            whole = await collect(one.stream(config(**request), *chunks(data)))
            before = await collect(one.stream(config(**request), *chunks(data[:150_000])))
            last = [event.progress for event in before if event.WhichOneof("event") == "progress"][-1]
            # The events after the newest Progress are lost with the connection.
            kept = before[: kinds(before).index("progress")]
            for event in before:
                if event.WhichOneof("event") == "progress" and event.progress == last:
                    kept = before[: before.index(event)]

            start = int(seconds(last.replay_offset) * 32_000)
            point = {"start_offset": last.replay_offset, "resume_token": last.resume_token}
            after = await collect(other.stream(config(resume=point, **request), *chunks(data[start:], 1234)))
            assert plain(detections(kept)) + plain(detections(after)) == plain(detections(whole))
            assert after[-1].ended.audio_duration == whole[-1].ended.audio_duration

            def offsets(events: list) -> list[float]:
                return [
                    seconds(event.scores.offset) for event in events if event.WhichOneof("event") == "scores"
                ]

            # The scores of replayed audio are not sent again.
            assert offsets(kept) + offsets(after) == offsets(whole)

    run(scenario)


def test_twenty_concurrent_streams_get_the_detections_that_each_gets_alone(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        recordings = [
            pcm([(0.3 + 0.11 * i, "low"), (1.5, "mid"), (2.4, "high")], 3 + 0.1 * i, seed=i)
            for i in range(20)
        ]
        async with serving(tiny_model_path) as rig:
            alone = [await collect(rig.stream(config(), *chunks(one))) for one in recordings]
            together = await asyncio.gather(
                *(
                    collect(rig.stream(config(), *chunks(one, 700 + 97 * i)))
                    for i, one in enumerate(recordings)
                )
            )
            for mine, theirs in zip(together, alone, strict=True):
                assert_same(detections(mine), plain(detections(theirs)))
                assert detections(mine)

    run(scenario)


def test_a_stream_is_processed_much_faster_than_real_time(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            begun = time.monotonic()
            events = await collect(rig.stream(config(), *[silence(60)] * 10))
            assert seconds(events[-1].ended.audio_duration) == 600
            assert time.monotonic() - begun < 20

    run(scenario)
