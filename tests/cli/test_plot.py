"""`earmark plot`. tests/integration/test_plot_page.py opens its page in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from support.earmark_command import RATE_HZ, SECONDS, earmark, python_process, samples

if TYPE_CHECKING:
    from pathlib import Path


class _Page(HTMLParser):
    """The addresses that a page loads, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        self._in_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False


def _data(page: _Page) -> dict[str, Any]:
    match = re.search(r"^const data = (\{.*\});$", "".join(page.scripts), re.MULTILINE)
    assert match
    return json.loads(match[1])


def test_a_page_contains_the_sound_the_scores_and_the_detections(
    address: str, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.html"
    done = earmark(
        "plot", recording, "-o", out, "--server", address, "--keyword", "low=0.7", "--keyword", "mid"
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{out}: 0:04 of audio, 2 detections by tiny 1.0.0\n"
    page = _Page(out.read_text())
    (sound,) = page.addresses
    kind, _, encoded = sound.partition("base64,")
    assert kind == "data:audio/flac;"
    played, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(encoded)), dtype="int16")
    assert rate_hz == RATE_HZ
    assert np.array_equal(played, samples())
    data = _data(page)
    wave = np.frombuffer(base64.b64decode(data["wave"]), np.int8).reshape(-1, 2)
    pieces = samples().astype(int).reshape(len(wave), -1)
    expected = np.stack([pieces.min(axis=1), pieces.max(axis=1)], axis=1) * 127 / np.abs(pieces).max()
    assert np.abs(wave - expected).max() <= 0.5
    assert data["duration_s"] == SECONDS
    assert [(one["keyword"], one["threshold"]) for one in data["keywords"]] == [("low", 0.7), ("mid", 0.6)]
    low, mid = (np.frombuffer(base64.b64decode(one["scores"]), np.uint8) / 255 for one in data["keywords"])
    assert len(data["offsets_s"]) == len(low) == len(mid) == SECONDS / 0.02
    for one, scores in zip(data["detections"], (low, mid), strict=True):
        peak_s = data["offsets_s"][int(scores.argmax())]
        assert one["start_s"] < peak_s < one["end_s"] + 0.5
        assert scores.max() == pytest.approx(one["confidence"], abs=1 / 255)


def test_a_file_name_is_escaped_in_the_page(address: str, recording: Path, tmp_path: Path) -> None:
    nasty = tmp_path / "<img src=x>&@@DATA@@.wav"
    nasty.write_bytes(recording.read_bytes())
    out = tmp_path / "out.html"
    assert earmark("plot", nasty, "-o", out, "--server", address).returncode == 0
    page = _Page(out.read_text())
    assert all(one.startswith("data:") for one in page.addresses)
    assert len(_data(page)["detections"]) == 3


def test_a_part_of_a_recording_keeps_the_offsets_of_the_recording(
    address: str, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.html"
    done = earmark("plot", recording, "--from", "1.2", "--to", "2.2", "-o", out, "--server", address)
    assert done.returncode == 0
    data = _data(_Page(out.read_text()))
    assert (data["start_s"], data["duration_s"]) == (1.2, 1.0)
    assert [one["keyword"] for one in data["detections"]] == ["mid"]


def test_an_image_is_drawn(address: str, recording: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    out = tmp_path / "out.png"
    assert earmark("plot", recording, "-o", out, "--server", address).returncode == 0
    pixels = image.imread(out)
    assert pixels.shape[1] == 1100
    assert pixels[..., :3].std() > 0.1


def test_an_image_requires_matplotlib_and_a_page_does_not(
    address: str, recording: Path, tmp_path: Path
) -> None:
    for suffix, code in [("png", 1), ("html", 0)]:
        args = ["plot", str(recording), "-o", str(tmp_path / f"out.{suffix}"), "--server", address]
        done = python_process(
            "import sys\n"
            "sys.modules['matplotlib'] = None\n"
            "from earmark_cli.__main__ import main\n"
            f"sys.exit(main({args!r}))"
        )
        assert done.returncode == code, done.stderr
        if code:
            assert "(the extra `plot`)" in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_unusable_recordings_and_file_names_are_reported(
    address: str, recording: Path, tmp_path: Path
) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(601 * 8000, np.int16), 8000)
    done = earmark("plot", recording, "-o", "out.gif", "--server", address)
    assert (done.returncode, done.stdout) == (2, "")
    assert "give a name that ends in .html or .png" in done.stderr
    for args, sentence in [
        ([recording, "--from", "9"], "the recording is 4.0 s long"),
        ([recording, "--from", "9", "--to", "10"], "there is no audio between --from and --to"),
        ([long], "at most 10 minutes can be drawn: choose them with --from SECONDS --to SECONDS"),
        ([tmp_path / "absent.wav"], "No such file"),
        ([recording, "-o", tmp_path / "absent" / "out.html"], "cannot be written: No such file or directory"),
    ]:
        done = earmark("plot", *args, "--server", address)
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_silence_is_drawn(address: str, tmp_path: Path) -> None:
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(RATE_HZ, np.int16), RATE_HZ)
    for name in ["out.html", *(["out.png"] if "matplotlib" in sys.modules else [])]:
        assert earmark("plot", silent, "-o", tmp_path / name, "--server", address).returncode == 0
