"""Warnings about a stream's audio: each once, at the same place for all chunks, also after a resume."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from support import tiny_model
from support.server_rig import (
    audio,
    chunks,
    collect,
    config,
    duration,
    failure,
    kinds,
    run,
    seconds,
    serving,
    silence,
)

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 16_000
WORDS = tiny_model.recording([(0.5, "low"), (1.4, "mid"), (2.2, "high"), (3.1, "low")], 4.0)


def form(encoding: str = "LINEAR16", channels: int = 1, rate_hz: int = RATE_HZ) -> messages.AudioFormat:
    number = messages.Encoding.Value(f"ENCODING_{encoding}")
    return messages.AudioFormat(encoding=number, sample_rate_hertz=rate_hz, channel_count=channels)


def linear16(samples: np.ndarray, kind: str = "<i2") -> bytes:
    return np.clip(np.round(samples * 32767), -32768, 32767).astype(kind).tobytes()


def container(name: str, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.tile(WORDS, 2), RATE_HZ, format=name, subtype=subtype)
    data = file.getvalue()
    return data + bytes(len(data) % 2)


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    return linear16(np.stack([left, right], 1))


SECOND = np.zeros(RATE_HZ)
NOISE = np.random.default_rng(1).normal(0, 0.001, 4 * RATE_HZ)
SPEECH = WORDS + NOISE
CASES: list[Any] = [
    pytest.param(form(), container("WAV"), "NOT_RAW_SAMPLES", "WAV", id="WAV"),
    pytest.param(form(), container("FLAC"), "NOT_RAW_SAMPLES", "FLAC", id="FLAC"),
    pytest.param(form(), container("OGG", "VORBIS"), "NOT_RAW_SAMPLES", "Ogg", id="Ogg"),
    pytest.param(form(), container("MP3", "MPEG_LAYER_III"), "NOT_RAW_SAMPLES", "MP3", id="MP3"),
    pytest.param(
        form("MULAW", rate_hz=8000), container("WAV", "ULAW"), "NOT_RAW_SAMPLES", "WAV", id="mu-law"
    ),
    pytest.param(form(), base64.b64encode(linear16(SPEECH)), "NOT_RAW_SAMPLES", "base64", id="base64"),
    pytest.param(form(), linear16(SPEECH, ">i2"), "OTHER_FORMAT", "big-endian", id="big-endian"),
    pytest.param(
        form(channels=2),
        linear16(np.stack([SPEECH, SPEECH / 2], 1), ">i2"),
        "OTHER_FORMAT",
        "big-endian",
        id="big-endian stereo",
    ),
    pytest.param(form(), b"\0" + linear16(SPEECH)[:-1], "OTHER_FORMAT", "big-endian", id="a byte too many"),
    pytest.param(form(), SPEECH.astype("<f4").tobytes(), "OTHER_FORMAT", "FLOAT32", id="floats as integers"),
    pytest.param(form("MULAW"), linear16(SPEECH), "OTHER_FORMAT", "LINEAR16", id="integers as mu-law"),
    pytest.param(form(), linear16(np.sign(SPEECH)), "CLIPPED", "full scale", id="clipped"),
    pytest.param(
        form("FLOAT32"), np.sign(SPEECH).astype("<f4").tobytes(), "CLIPPED", "full scale", id="clipped floats"
    ),
    pytest.param(form(channels=2), stereo(SPEECH, -SPEECH), "CHANNELS_CANCEL", "cancel", id="right is -left"),
    pytest.param(
        form(channels=2),
        bytes(4 * 20 * RATE_HZ) + stereo(SPEECH, -SPEECH),
        "CHANNELS_CANCEL",
        "cancel",
        id="right is -left after silence",
    ),
    pytest.param(form(), bytes(2 * 61 * RATE_HZ), "DIGITAL_SILENCE", "60 s", id="digital silence"),
    pytest.param(
        form(), linear16(SPEECH) + bytes(2 * 70 * RATE_HZ), "DIGITAL_SILENCE", "60 s", id="muted later"
    ),
    pytest.param(
        form("MULAW", rate_hz=8000), b"\xff" * 61 * 8000, "DIGITAL_SILENCE", "60 s", id="mu-law silence"
    ),
    pytest.param(
        form("ALAW", rate_hz=8000), b"\xd5" * 61 * 8000, "DIGITAL_SILENCE", "60 s", id="A-law silence"
    ),
]


def warnings(events: list[Any]) -> list[messages.Warning]:
    return [event.warning for event in events if event.WhichOneof("event") == "warning"]


@pytest.mark.slow
@pytest.mark.parametrize(("audio_format", "data", "reason", "word"), CASES)
def test_a_warning_comes_once_and_at_the_same_place_for_all_chunks(
    tiny_model_path: Path, audio_format: messages.AudioFormat, data: bytes, reason: str, word: str
) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            all_kinds = []
            for size in (10**6, 3200, 999, 16_001):
                start = config(audio_format=audio_format, score_interval=duration(0.5))
                events = await collect(rig.stream(start, *chunks(data, size)))
                (warning,) = warnings(events)
                assert warning.reason == reason
                assert word in warning.message
                all_kinds.append([kind for kind in kinds(events) if kind != "progress"])
            assert all(one == all_kinds[0] for one in all_kinds)

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
def test_a_warning_comes_for_chunks_of_single_bytes(tiny_model_path: Path, size: int) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            for data, reason in (
                (container("WAV"), "NOT_RAW_SAMPLES"),
                (linear16(SPEECH, ">i2"), "OTHER_FORMAT"),
            ):
                requests = [*chunks(data[:9000], size), audio(data[9000:])]
                (warning,) = warnings(await collect(rig.stream(config(), *requests)))
                assert warning.reason == reason

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize(("audio_format", "data", "reason", "word"), CASES)
def test_a_stream_that_resumes_anywhere_gets_no_warning_twice_and_misses_none(
    tiny_model_path: Path, audio_format: messages.AudioFormat, data: bytes, reason: str, word: str
) -> None:
    """Without the client, which would drop repeated ones."""
    assert word
    frame_bytes = {"ENCODING_LINEAR16": 2, "ENCODING_FLOAT32": 4}.get(
        messages.Encoding.Name(audio_format.encoding), 1
    ) * audio_format.channel_count
    byte_rate = frame_bytes * audio_format.sample_rate_hertz

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            start = config(audio_format=audio_format, progress_interval=duration(1))
            events = await collect(rig.stream(start, *chunks(data)))
            before = [kinds(events)[:i].count("warning") for i in range(len(events))]
            places = [i for i, kind in enumerate(kinds(events)) if kind == "progress"]
            places = places[:4] + places[4:-4:9] + places[-4:]
            for place in places:
                progress = events[place].progress
                resume = rpcs.ResumePoint(
                    start_offset=progress.replay_offset, resume_token=progress.resume_token
                )
                again = config(audio_format=audio_format, resume=resume)
                rest = data[round(seconds(progress.replay_offset)) * byte_rate :]
                found = [
                    one.reason for one in warnings(await collect(rig.stream(again, *chunks(rest, 64_000))))
                ]
                assert found == [reason] * (1 - before[place])

    run(scenario)


def test_audio_without_a_problem_gets_no_warning(tiny_model_path: Path) -> None:
    rng = np.random.default_rng(2)
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    formats = [
        (form(), linear16(SPEECH)),
        (form(), linear16(SPEECH / 300)),
        (form(), linear16(rng.uniform(-1, 1, 4 * RATE_HZ))),
        (form(), linear16(np.sin(2 * np.pi * 7000 * time_s) / 2)),
        (form(), linear16(np.clip(SPEECH * 1.2, -1, 1))),
        (form("FLOAT32"), SPEECH.astype("<f4").tobytes()),
        (form(channels=2), stereo(SPEECH, NOISE)),
        (form(channels=2), stereo(SPEECH, SPEECH)),
        (form(channels=2), stereo(SPEECH, SPEECH * 0)),
        (form("MULAW"), bytes(rng.integers(0, 256, 4 * RATE_HZ, np.uint8))),
        (form("ALAW"), b"\x55" * RATE_HZ),
        (form(), bytes(2 * 59 * RATE_HZ) + linear16(SPEECH) + bytes(2 * 59 * RATE_HZ)),
        (form(), b"hell"),
        (form(), b""),
    ]

    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            for audio_format, data in formats:
                assert not warnings(
                    await collect(rig.stream(config(audio_format=audio_format), *chunks(data)))
                )
            # A pause that the client states is no sign of a microphone that is muted.
            pauses = [silence(50), audio(linear16(SPEECH)), silence(600)]
            assert not warnings(await collect(rig.stream(config(), *pauses)))

    run(scenario)


def test_a_warning_precedes_the_error_that_has_the_same_cause(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            call = rig.stub.StreamingSpot(timeout=30)
            await call.write(config(audio_format=form("FLOAT32")))
            await call.write(audio(container("MP3", "MPEG_LAYER_III")))
            events = [await call.read(), await call.read()]
            assert [one.reason for one in warnings(events)] == ["NOT_RAW_SAMPLES"]
            assert (await failure(call)).reason == "BAD_AUDIO"

    run(scenario)


def test_recordings_of_raw_samples_get_the_same_warnings(tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tiny_model_path) as rig:
            for data, reasons in ((linear16(SPEECH, ">i2"), ["OTHER_FORMAT"]), (linear16(SPEECH), [])):
                spotted = await rig.stub.Spot(rpcs.SpotRequest(audio_format=form(), audio=data))
                classified = await rig.stub.Classify(rpcs.ClassifyRequest(audio_format=form(), audio=data))
                assert [one.reason for one in spotted.warnings] == reasons
                assert [one.reason for one in classified.warnings] == reasons

    run(scenario)
