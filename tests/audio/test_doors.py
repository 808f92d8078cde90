"""Each kind of imperfect recording, through every command and every call that reads recordings.

The same file gives the same words, or the same sentence, wherever it enters.
"""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark_audio import mpeg
from earmark_client import EarmarkError, Recording, RecordingError, SyncClient
from earmark_web.app import make_app
from starlette.testclient import TestClient
from support.earmark_command import RATE_HZ, WORDS, earmark, json_lines, samples
from support.paths import DEMO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYWORDS = [word for _, word in WORDS]
SPEECH = samples() / 32768


@dataclass(frozen=True)
class Case:
    """A recording, and what is right for it."""

    data: Callable[[], bytes]
    words: list[str] = field(default_factory=lambda: KEYWORDS)
    error: str = ""
    """Part of the error; empty if everything can be read."""
    notice: str = ""
    """Part of the notice; empty if there is none."""
    is_empty: bool = False
    """Whether nothing at all can be read."""


@dataclass
class Result:
    """What came out of a door."""

    messages: str
    failed: bool
    words: list[str] | None = None
    """The detected words; None where the door returns none."""


def written(container: str, codec: str | None = None, audio: np.ndarray = SPEECH, **settings: Any) -> bytes:
    file = io.BytesIO()
    rate_hz = settings.pop("rate_hz", RATE_HZ)
    soundfile.write(file, audio, rate_hz, format=container, subtype=codec, **settings)
    return file.getvalue()


def encoded(suffix: str, *options: str) -> bytes:
    """Return the words in a format that libsndfile does not write."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg to write the file with")
    with tempfile.NamedTemporaryFile(suffix=suffix) as out:
        command = ["ffmpeg", "-loglevel", "quiet", "-y", "-i", "-", *options, out.name]
        subprocess.run(command, input=written("WAV", "PCM_16"), check=True)
        return Path(out.name).read_bytes()


def flac_without_length() -> bytes:
    data = bytearray(written("FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def mp3_without_xing() -> bytes:
    """Variable bit rate, and no frame that states the length: a decoder that estimates it stops early."""
    quiet = np.concatenate([np.random.default_rng(0).normal(0, 0.1, RATE_HZ // 4), SPEECH])
    data = written("MP3", audio=quiet, bitrate_mode="VARIABLE", compression_level=0.5)
    begin = mpeg.find_frames(data)
    assert begin is not None
    assert b"Xing" in data[begin : begin + 200]
    return data[begin + mpeg.frame_bytes(data[begin : begin + 8]) :]


def one_mp3_frame() -> bytes:
    data = mp3_without_xing()
    return data[: mpeg.frame_bytes(data)]


def unfinished_wav() -> bytes:
    data = bytearray(written("WAV", "PCM_16"))
    data[4:8] = data[40:44] = bytes(4)
    return bytes(data)


def wav_without_padding() -> bytes:
    """A chunk of an odd length, and no byte of padding after it."""
    data = written("WAV", "PCM_16")
    data = data[:36] + b"LIST\x11\0\0\0INFOISFT\5\0\0\x001.2.3" + data[36:]
    return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def damaged(data: bytes, share: float) -> bytes:
    """Return a recording with one wrong byte."""
    at = int(len(data) * share)
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


@functools.cache
def data(name: str) -> bytes:
    """Return the recording of a case, which is written once."""
    return CASES[name].data()


ID3_TAG = b"ID3\4\0\0\0\0\x4e\x10" + bytes(10_000)
OPPOSITE = np.stack([SPEECH, -SPEECH], axis=1)
CASES = {
    "flac-length-unknown": Case(flac_without_length),
    "mp3-vbr-no-xing": Case(mp3_without_xing),
    "joined-files mp3": Case(lambda: 2 * written("MP3"), words=2 * KEYWORDS),
    "joined-files opus": Case(lambda: 2 * written("OGG", "OPUS"), words=2 * KEYWORDS),
    "joined-files wav": Case(lambda: 2 * written("WAV", "PCM_16"), words=2 * KEYWORDS),
    "wav-unfinished-header": Case(unfinished_wav, notice="the header was never finished"),
    "wav-without-padding": Case(wav_without_padding),
    "damaged-end-loses-words flac": Case(lambda: cut(written("FLAC"), 0.9), error="truncated"),
    "damaged-end-loses-words wav": Case(lambda: cut(written("WAV", "PCM_16"), 0.9), error="truncated"),
    "damaged-end-loses-words opus": Case(lambda: cut(written("OGG", "OPUS"), 0.9), error="truncated"),
    "damaged-middle-loses-words opus": Case(lambda: damaged(written("OGG", "OPUS"), 0.9), error="damaged"),
    "damaged-middle-loses-words oga": Case(
        lambda: damaged(encoded(".oga", "-c:a", "flac"), 0.9), error="damaged"
    ),
    "bytes-after-the-end flac": Case(
        lambda: written("FLAC") + b"TAG" + bytes(125), notice="other bytes follow the end"
    ),
    "tag-before-the-recording flac": Case(lambda: ID3_TAG + written("FLAC")),
    "tag-before-the-recording aac": Case(lambda: ID3_TAG + encoded(".aac")),
    "stereo-cancels": Case(lambda: written("WAV", "PCM_16", OPPOSITE), words=[], notice="cancel each other"),
    "float-of-integer-scale": Case(
        lambda: written("WAV", "FLOAT", SPEECH * 32768),
        error="divide 16-bit integers by 32768",
        is_empty=True,
    ),
    "file-does-not-exist": Case(one_mp3_frame, error="there is no whole frame", is_empty=True),
    "error-names-no-file": Case(
        lambda: written("WAV", "PCM_16", rate_hz=4000), error="sample rate 4000 hz is not", is_empty=True
    ),
    "no recording: text": Case(lambda: b"no sound\n" * 99, error="this is a text file", is_empty=True),
    "no recording: ZIP": Case(lambda: b"PK\x03\x04" + bytes(99), error="a zip archive", is_empty=True),
    "no recording: raw samples": Case(
        lambda: samples().tobytes(), error="the format is unknown", is_empty=True
    ),
    "no recording: nothing": Case(lambda: b"", error="the recording is empty", is_empty=True),
    "no samples": Case(
        lambda: written("WAV", "PCM_16", SPEECH[:0]), error="it contains no samples", is_empty=True
    ),
    "common-formats-refused m4a": Case(lambda: encoded(".m4a")),
    "common-formats-refused aac": Case(lambda: encoded(".aac")),
    "common-formats-refused webm": Case(lambda: encoded(".webm")),
    "common-formats-refused mp3": Case(lambda: written("MP3")),
    "good-files-called-damaged oga": Case(lambda: encoded(".oga", "-c:a", "flac")),
    "good-files-called-damaged spx": Case(lambda: encoded(".spx", "-c:a", "libspeex")),
    "good-files-called-damaged mp3 in wav": Case(lambda: encoded(".wav", "-c:a", "libmp3lame")),
}


@pytest.fixture(scope="module")
def web(address: str) -> Iterator[TestClient]:
    with TestClient(make_app(address, sample=DEMO), base_url="http://localhost") as client:
        yield client


def through_command(address: str, path: Path, *arguments: str | Path, stdin: bytes = b"") -> Result:
    done = earmark(*arguments, "--server", address, stdin=stdin)
    for line in done.stderr.splitlines() if "tune" not in arguments else ():  # it says what applies to all
        assert str(path) in line or "standard input" in line or not line.startswith("earmark: "), line
    words = [
        line["keyword"]
        for line in (json_lines(done.stdout) if "--json" in arguments else [])
        if line["type"] == "detection"
    ]
    return Result(done.stderr, done.returncode != 0, words if "--json" in arguments else None)


def spot(address: str, path: Path, _: TestClient) -> Result:
    return through_command(address, path, "spot", path, "--json")


def spot_standard_input(address: str, path: Path, _: TestClient) -> Result:
    return through_command(address, path, "spot", "-", "--json", stdin=path.read_bytes())


def plot(address: str, path: Path, _: TestClient) -> Result:
    return through_command(address, path, "plot", path, "-o", path.with_suffix(".html"))


def classify(address: str, path: Path, _: TestClient) -> Result:
    return through_command(address, path, "classify", path)


def tune(address: str, path: Path, _: TestClient) -> Result:
    result = through_command(address, path, "tune", path.parents[1])
    # Thirty recordings, and hours of other audio, are not the subject here.
    result.messages = "".join(line for line in result.messages.splitlines(True) if path.name in line)
    return result


def check(_: str, path: Path, __: TestClient) -> Result:
    done = earmark("check", path)
    return Result(done.stdout + done.stderr, done.returncode != 0)


def library(_: str, path: Path, __: TestClient) -> Result:
    try:
        with Recording(path) as recording:
            try:
                list(recording)
            except RecordingError as error:
                return Result(f"{error} {recording.notices}", failed=True)
            return Result(" ".join(map(str, recording.notices)), failed=False)
    except RecordingError as error:
        return Result(str(error), failed=True)


def spot_call(address: str, path: Path, _: TestClient) -> Result:
    with SyncClient(address) as client:
        try:
            result = client.spot(path)
        except EarmarkError as error:
            return Result(str(error), failed=True)
    incomplete = any(one.reason == "RECORDING_INCOMPLETE" for one in result.warnings)
    messages = " ".join(one.message for one in result.warnings)
    return Result(messages, incomplete, [one.keyword for one in result.detections])


def classify_call(address: str, path: Path, _: TestClient) -> Result:
    with SyncClient(address) as client:
        try:
            result = client.classify(path)
        except EarmarkError as error:
            return Result(str(error), failed=True)
    incomplete = any(one.reason == "RECORDING_INCOMPLETE" for one in result.warnings)
    return Result(" ".join(one.message for one in result.warnings), incomplete)


def spot_form(_: str, path: Path, web: TestClient) -> Result:
    result, answer = posted(web, "/spot", path)
    return replace(result, words=[one["keyword"] for one in answer["detections"]]) if answer else result


def predict(_: str, path: Path, web: TestClient) -> Result:
    return posted(web, "/predict", path)[0]


def posted(web: TestClient, address: str, path: Path) -> tuple[Result, dict[str, Any] | None]:
    """Post a recording; return the result, and the response unless it is an error."""
    response = web.post(address, files={"file": (path.name, path.read_bytes())})
    answer = response.json()
    if response.status_code != 200:
        assert response.status_code == 400
        return Result(answer["error"]["message"], failed=True), None
    incomplete = any(one["reason"] == "RECORDING_INCOMPLETE" for one in answer["warnings"])
    return Result(" ".join(one["message"] for one in answer["warnings"]), incomplete), answer


def training(_: str, path: Path, __: TestClient) -> Result:
    corpus = pytest.importorskip("earmark_training.data.corpus", exc_type=ImportError)
    try:
        corpus.read_audio(path)
    except corpus.CorpusError as error:
        return Result(f"{error} {error.__cause__}", failed=True)
    return Result("", failed=False)


DOORS = (
    spot,
    spot_standard_input,
    plot,
    classify,
    tune,
    check,
    library,
    spot_call,
    classify_call,
    spot_form,
    predict,
    training,
)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("name", CASES)
def test_a_recording_gives_its_words_or_a_sentence(
    address: str,
    web: TestClient,
    tmp_path: Path,
    name: str,
    door: Callable[[str, Path, TestClient], Result],
) -> None:
    case = CASES[name]
    if door is spot_standard_input and case.data is CASES["no recording: raw samples"].data:
        pytest.skip("standard input holds raw samples")
    path = tmp_path / "low" / "recording.wav"
    path.parent.mkdir()
    path.write_bytes(data(name))
    result = door(address, path, web)
    said = result.messages.lower()
    assert result.failed == bool(case.error), result
    assert case.error in said or (door is spot_standard_input and "contains no audio" in said), result
    assert "traceback" not in said
    if door is not training:  # it prints no notices
        assert case.notice in said
    # From a pipe, samples come before the first one that is out of scale.
    if result.words is not None and (door is not spot_standard_input or "scale" not in name):
        assert result.words == ([] if case.is_empty else case.words)
