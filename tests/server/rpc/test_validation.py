"""Invalid streams: each gets the status, reason and field of its error, and other streams continue."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import (
    WORDS,
    audio,
    chunks,
    collect,
    config,
    detections,
    duration,
    failure,
    pcm,
    run,
    serving,
    silence,
)

if TYPE_CHECKING:
    from pathlib import Path

FLOAT32 = messages.AudioFormat(encoding=messages.ENCODING_FLOAT32, sample_rate_hertz=16_000)
STEREO = messages.AudioFormat(encoding=messages.ENCODING_LINEAR16, sample_rate_hertz=16_000, channel_count=2)


def form(encoding: int = 1, rate_hz: int = 16_000, channels: int = 0) -> messages.AudioFormat:
    return messages.AudioFormat(encoding=encoding, sample_rate_hertz=rate_hz, channel_count=channels)


def setting(keyword: str = "low", **fields: Any) -> messages.KeywordSetting:
    return messages.KeywordSetting(keyword=keyword, **fields)


NAN = float("nan")
BAD_STREAMS: list[Any] = [
    pytest.param([], "CONFIG_EXPECTED_FIRST", "", id="nothing at all"),
    pytest.param([audio(b"\0\0")], "CONFIG_EXPECTED_FIRST", "", id="audio before config"),
    pytest.param([silence(1)], "CONFIG_EXPECTED_FIRST", "", id="silence before config"),
    pytest.param([rpcs.StreamingSpotRequest()], "CONFIG_EXPECTED_FIRST", "", id="an empty message first"),
    pytest.param([config(), config()], "CONFIG_REPEATED", "", id="config twice"),
    pytest.param([config(), audio(b"\0\0"), config()], "CONFIG_REPEATED", "", id="config after audio"),
    pytest.param([config(), rpcs.StreamingSpotRequest()], "BAD_AUDIO", "", id="an empty message later"),
    pytest.param(
        [rpcs.StreamingSpotRequest(config=rpcs.StreamingConfig())],
        "UNSUPPORTED_ENCODING",
        "config.audio_format.encoding",
        id="no audio format",
    ),
    *[
        pytest.param(
            [config(audio_format=form(encoding))],
            "UNSUPPORTED_ENCODING",
            "config.audio_format.encoding",
            id=f"encoding {encoding}",
        )
        for encoding in (0, 5, 6, 7, 99, -1)
    ],
    *[
        pytest.param(
            [config(audio_format=form(rate_hz=rate_hz))],
            "UNSUPPORTED_SAMPLE_RATE",
            "config.audio_format.sample_rate_hertz",
            id=f"{rate_hz} Hz",
        )
        for rate_hz in (0, -16_000, 7999, 192_001, 300_000, 2**31 - 1)
    ],
    *[
        pytest.param(
            [config(audio_format=form(channels=channels))],
            "BAD_AUDIO",
            "config.audio_format.channel_count",
            id=f"{channels} channels",
        )
        for channels in (9, -1)
    ],
    pytest.param(
        [config(keywords=[setting("xyzzy")])], "UNKNOWN_KEYWORD", "config.keywords[0]", id="unknown keyword"
    ),
    pytest.param(
        [config(keywords=[setting("")])], "UNKNOWN_KEYWORD", "config.keywords[0]", id="empty keyword"
    ),
    pytest.param(
        [config(keywords=[setting("_silence_")])],
        "UNKNOWN_KEYWORD",
        "config.keywords[0]",
        id="a class that is no keyword",
    ),
    pytest.param(
        [config(keywords=[setting("x" * 60_000)])],
        "UNKNOWN_KEYWORD",
        "config.keywords[0]",
        id="a huge keyword",
    ),
    pytest.param(
        [config(keywords=[setting("\u6f22" * 20_000)])],
        "UNKNOWN_KEYWORD",
        "config.keywords[0]",
        id="a huge keyword beyond ASCII",
    ),
    pytest.param(
        [config(keywords=[setting("mid"), setting("low"), setting("mid")])],
        "UNKNOWN_KEYWORD",
        "config.keywords[2]",
        id="a keyword twice",
    ),
    pytest.param(
        [config(keywords=[setting()] * 257)], "BAD_CONFIG", "config.keywords", id="too many keywords"
    ),
    pytest.param(
        [config(keywords=[setting("")] * 100_000)], "MESSAGE_TOO_LARGE", "", id="a hundred thousand keywords"
    ),
    pytest.param([config(model="x" * 70_000)], "MESSAGE_TOO_LARGE", "", id="a huge model name"),
    *[
        pytest.param(
            [config(keywords=[setting("mid"), setting(threshold=threshold)])],
            "BAD_THRESHOLD",
            "config.keywords[1]",
            id=f"threshold {threshold}",
        )
        for threshold in (0.0, 1.0, -0.5, 1.5, NAN, float("inf"))
    ],
    *[
        pytest.param(
            [config(keywords=[setting(refractory=Duration(seconds=s, nanos=n))])],
            "BAD_THRESHOLD",
            "config.keywords[0].refractory",
            id=f"refractory {s} s {n} ns",
        )
        for s, n in ((-1, 0), (60, 1), (2**62, 0), (1, -1), (0, 2_000_000_000))
    ],
    *[
        pytest.param([config(), message], "BAD_AUDIO", "silence", id=f"silence {name}")
        for name, message in (
            ("of -1 s", rpcs.StreamingSpotRequest(silence=Duration(seconds=-1))),
            ("of more than an hour", rpcs.StreamingSpotRequest(silence=Duration(seconds=3600, nanos=1))),
            ("of 9e18 s", rpcs.StreamingSpotRequest(silence=Duration(seconds=2**63 - 1))),
            ("malformed", rpcs.StreamingSpotRequest(silence=Duration(seconds=1, nanos=-5))),
        )
    ],
    pytest.param([config(), audio(b"\0"), silence(1)], "BAD_AUDIO", "", id="silence inside a sample"),
    pytest.param([config(), audio(b"\0\0\0")], "BAD_AUDIO", "", id="half a sample at the end"),
    pytest.param(
        [config(audio_format=STEREO), audio(b"\0\0")], "BAD_AUDIO", "", id="one channel of two at the end"
    ),
    *[
        pytest.param(
            [config(audio_format=FLOAT32), audio(struct.pack("<4f", 0, 0.5, value, 0))],
            "BAD_AUDIO",
            "",
            id=f"{value}",
        )
        for value in (NAN, float("inf"), float("-inf"), 3e38)
    ],
    *[
        pytest.param(
            [config(progress_interval=Duration(seconds=s, nanos=n))],
            "BAD_CONFIG",
            "config.progress_interval",
            id=f"progress every {s} s {n} ns",
        )
        for s, n in ((0, 0), (0, 99_999_999), (-1, 0), (0, -1))
    ],
    *[
        pytest.param(
            [config(score_interval=Duration(seconds=s))],
            "BAD_CONFIG",
            "config.score_interval",
            id=f"scores every {s} s",
        )
        for s in (0, -1)
    ],
    *[
        pytest.param(
            [config(request_id=name)], "BAD_CONFIG", "config.request_id", id=f"request id {name[:6]!a}"
        )
        for name in ("x" * 129, "a\nb", "caf\u00e9", "\x7f")
    ],
    pytest.param(
        [config(resume={"resume_token": b"nonsense"})],
        "BAD_RESUME_TOKEN",
        "config.resume",
        id="an invalid token",
    ),
    pytest.param([config(resume={})], "BAD_RESUME_TOKEN", "config.resume", id="no token"),
    pytest.param(
        [config(resume={"resume_token": bytes(60_000)})], "BAD_RESUME_TOKEN", "config.resume", id="zeros"
    ),
    pytest.param(
        [config(resume={"start_offset": Duration(seconds=-1)})],
        "BAD_RESUME_TOKEN",
        "config.resume.start_offset",
        id="resumed before the start",
    ),
]


@pytest.mark.parametrize(("requests", "reason", "field"), BAD_STREAMS)
def test_an_invalid_stream_gets_an_error_and_other_streams_continue(
    tiny_model_path: Path, requests: list[rpcs.StreamingSpotRequest], reason: str, field: str
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            other = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await other.write(config())
            data = pcm()
            for request in chunks(data[:64_000]):
                await other.write(request)

            failed = await failure(rig.stream(*requests))
            assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, reason)
            assert failed.fields == ([field] if field else [])
            assert failed.retry_s is None
            assert failed.trailers["earmark-request-id"]
            assert 20 < len(failed.message) < 2000
            await rig.used_slots(1)

            for request in chunks(data[64_000:]):
                await other.write(request)
            await other.done_writing()
            assert [one.keyword for one in detections(await collect(other))] == [word for _, word in WORDS]

    run(scenario)


def test_an_error_lists_the_valid_keywords_and_models(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            failed = await failure(rig.stream(config(keywords=[setting("xyzzy")])))
            assert "low, mid, high" in failed.message
            failed = await failure(rig.stream(config(model="big")))
            assert (failed.code, failed.reason) == (StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
            assert failed.fields == ["config.model"]
            assert "tiny" in failed.message

    run(scenario)


def test_detections_before_an_error_are_sent_first(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config(request_id="r 1"))
            await call.write(audio(pcm([(0.3, "mid")], 1)))
            await call.write(audio(b"\0"))
            await call.done_writing()
            seen = [await call.read() for _ in range(2)]
            assert [one.keyword for one in detections(seen)] == ["mid"]
            failed = await failure(call)
            assert failed.reason == "BAD_AUDIO"
            assert failed.trailers["earmark-request-id"] == "r 1"

    run(scenario)


@pytest.mark.parametrize("change", ["flip", "cut", "keywords", "format", "model", "offset"])
def test_a_resume_token_fits_only_its_own_stream(tiny_model_path: Path, tmp_path: Path, change: str) -> None:
    from support import tiny_model

    async def scenario() -> None:
        document = tiny_model.metadata()
        document["version"] = "2.0.0"
        changed = tiny_model.build(tmp_path / "changed.onnx", document=document)
        async with serving(tiny_model_path) as rig, serving(changed) as other:
            events = await collect(rig.stream(config(), *chunks(pcm())))
            progress = [event.progress for event in events if event.WhichOneof("event") == "progress"][-1]
            fields: dict[str, Any] = {}
            token, offset = progress.resume_token, progress.replay_offset
            server = rig
            if change == "flip":
                token = token[:20] + bytes([token[20] ^ 1]) + token[21:]
            elif change == "cut":
                token = token[:-1]
            elif change == "keywords":
                fields["keywords"] = [setting("low")]
            elif change == "format":
                fields["audio_format"] = STEREO
            elif change == "model":
                server = other
            else:
                offset = duration(1.5)
            resume = {"start_offset": offset, "resume_token": token}
            failed = await failure(server.stream(config(resume=resume, **fields)))
            assert (failed.code, failed.reason) == (StatusCode.INVALID_ARGUMENT, "BAD_RESUME_TOKEN")

    run(scenario)
