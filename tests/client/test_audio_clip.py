"""The audio of a detection: `keep_audio_s` and `Detection.audio`."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark_client import AudioClip, Detection, Encoding, InvalidRequestError, Resumed, Silence
from earmark_client.audio import AudioFormat
from earmark_client.audio_clip import RecentAudio
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_model
from support.both_clients import DRIVERS, Driver
from support.cutting_proxy import CuttingProxy
from support.paths import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_client import Event

RATE_HZ = 16_000
WORDS = [(0.5, "low"), (2.5, "mid"), (61.0, "high"), (64.0, "low")]
SAMPLES = (tiny_model.recording(WORDS, 65.0) * 32768).round().astype("<i2")

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])


def detections(events: list[Event]) -> list[Detection]:
    return [event for event in events if isinstance(event, Detection)]


def expected(detection: Detection, keep_s: float) -> bytes:
    first = max(0, round((detection.start_s - keep_s) * RATE_HZ))
    return SAMPLES[first : round((detection.end_s + keep_s) * RATE_HZ)].tobytes()


@both
@pytest.mark.parametrize("length", [pytest.param(700, marks=pytest.mark.slow), 16_000, 400_000])
@pytest.mark.parametrize("resume_within_s", [60, 0])
def test_a_detection_has_the_audio_around_it(
    client: Driver, address: str, length: int, resume_within_s: float
) -> None:
    chunks = [SAMPLES[start : start + length].tobytes() for start in range(0, len(SAMPLES), length)]
    settings: dict[str, Any] = {"sample_rate_hz": RATE_HZ, "resume_within_s": resume_within_s}
    plain = detections(client.events(address, chunks, **settings))
    found = detections(client.events(address, chunks, **settings, keep_audio_s=0.8))
    assert found == plain
    assert all(detection.audio is None for detection in plain)
    assert [one.keyword for one in found] == [word for _, word in WORDS]
    for detection in found:
        clip = detection.audio
        assert isinstance(clip, AudioClip)
        assert clip.start_s == pytest.approx(max(0, detection.start_s - 0.8), abs=1 / RATE_HZ)
        # As far as the source had yielded it; always as far as the keyword's end.
        assert expected(detection, 0.8).startswith(clip.data)
        assert clip.end_s >= detection.end_s


@both
def test_the_audio_is_there_after_the_connection_was_lost(client: Driver, address: str) -> None:
    chunks = [SAMPLES[start : start + RATE_HZ].tobytes() for start in range(0, len(SAMPLES), RATE_HZ)]
    events: list[Event] = []
    with CuttingProxy(int(address.rpartition(":")[2])) as proxy:

        def cut_once(event: Event) -> bool:
            if isinstance(event, Detection) and not detections(events):
                proxy.cut()
            events.append(event)
            return False

        client.until(proxy.address, chunks, cut_once, sample_rate_hz=RATE_HZ, keep_audio_s=0.5)
    assert any(isinstance(event, Resumed) for event in events)
    found = detections(events)
    assert len(found) == len(WORDS)
    for detection in found:
        assert detection.audio is not None
        assert expected(detection, 0.5).startswith(detection.audio.data)
        assert detection.audio.end_s >= detection.end_s


@both
@pytest.mark.parametrize("keep_audio_s", [-1, 61, float("nan"), float("inf")])
def test_a_length_out_of_range_is_rejected(client: Driver, address: str, keep_audio_s: float) -> None:
    with pytest.raises(InvalidRequestError, match="keep_audio_s must be 0 to 60 s") as caught:
        client.events(address, [b""], sample_rate_hz=RATE_HZ, keep_audio_s=keep_audio_s)
    assert caught.value.reason == "BAD_CONFIG"


@both
def test_a_silence_is_a_part_of_the_audio(client: Driver, address: str) -> None:
    chunks = [Silence(30.0), SAMPLES[: RATE_HZ * 2].tobytes(), Silence(3600.0)]
    (found,) = detections(client.events(address, chunks, sample_rate_hz=RATE_HZ, keep_audio_s=10))
    assert found.audio is not None
    samples = np.frombuffer(found.audio.data, "<i2")
    word = round((30 - found.audio.start_s) * RATE_HZ)
    assert not samples[:word].any()
    assert (samples[word : word + RATE_HZ] == SAMPLES[:RATE_HZ]).all()


@both
@pytest.mark.parametrize("length", [700, 16_000, 400_000])
def test_with_a_gate_the_audio_is_that_of_the_source(client: Driver, address: str, length: int) -> None:
    """The gate sends silence in place of the noise before a word; the clip has the noise."""
    noise = np.random.default_rng(1).integers(-3, 4, len(SAMPLES))
    samples = (SAMPLES + noise).clip(-32768, 32767).astype("<i2")
    chunks = [samples[start : start + length].tobytes() for start in range(0, len(samples), length)]
    settings: dict[str, Any] = {"sample_rate_hz": RATE_HZ, "gate": True}
    found = detections(client.events(address, chunks, **settings, keep_audio_s=10.0))
    assert [one.keyword for one in found] == [word for _, word in WORDS]
    for detection in found:
        clip = detection.audio
        assert clip is not None
        first = round(clip.start_s * RATE_HZ)
        assert clip.start_s == pytest.approx(max(0, detection.start_s - 10.0), abs=1 / RATE_HZ)
        assert clip.data == samples[first : first + len(clip.data) // 2].tobytes()
        assert clip.end_s >= detection.end_s


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 60).map(lambda n: 4 * n)), max_size=12),
    st.integers(-5, 200),
    st.integers(0, 200),
    st.integers(0, 100),
)
def test_a_clip_is_the_same_however_the_audio_was_cut(
    pieces: list[bytes | int], first: int, length: int, discarded: int
) -> None:
    layout = AudioFormat(RATE_HZ, Encoding.LINEAR16, 2)  # 4 bytes a frame
    recent = RecentAudio(layout, start_s=7 / RATE_HZ)
    for piece in pieces:
        recent.append(piece)
    recent.discard_before((7 + min(discarded, first)) / RATE_HZ)
    whole = b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)
    clip = recent.clip((7 + first) / RATE_HZ, (7 + first + length) / RATE_HZ)
    begin = max(0, first)
    end = min(first + length, len(whole) // 4)
    assert clip.data == whole[4 * begin : 4 * max(begin, end)]


@pytest.mark.parametrize(
    ("encoding", "data", "subtype"),
    [
        (Encoding.LINEAR16, SAMPLES[:1601].tobytes(), "PCM_16"),
        (Encoding.FLOAT32, (SAMPLES[:1601] / 32768).astype("<f4").tobytes(), "FLOAT"),
        (Encoding.MULAW, bytes(range(255)), "ULAW"),
        (Encoding.ALAW, bytes(range(255)), "ALAW"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_encoding_becomes_a_wav_file(
    encoding: Encoding, data: bytes, subtype: str, channels: int
) -> None:
    whole = data * channels
    file = soundfile.SoundFile(io.BytesIO(AudioClip(0.0, whole, 8000, encoding, channels).wav()))
    assert (file.samplerate, file.channels, file.subtype) == (8000, channels, subtype)
    assert file.frames == len(whole) // channels // {"PCM_16": 2, "FLOAT": 4}.get(subtype, 1)
    if subtype == "PCM_16":
        assert file.read(dtype="int16", always_2d=True).tobytes() == whole


def test_the_example_in_the_documents_writes_a_file_per_detection(
    address: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY / "docs/actions.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for shown, real in (("Microphone()", f"Recording({str(recording)!r})"), ("localhost:50051", address)):
        assert shown in example
        example = example.replace(shown, real)
    monkeypatch.chdir(tmp_path)
    exec(example.replace("import Detection, Microphone", "import Detection, Recording"), {})
    assert [path.name.split("-")[0] for path in sorted(tmp_path.glob("*.wav"))] == ["high", "low", "mid"]
