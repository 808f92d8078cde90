"""`earmark tune`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_server.embedded import serve_in_thread
from support import tiny_model
from support.earmark_command import RATE_HZ, earmark, earmark_process, json_lines, python_process
from support.environment import ADMIT_ALWAYS
from support.output_schema import check_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write keywords at several SNRs, and other audio with confusable sounds at several SNRs."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(1)
    for word in ("low", "mid"):
        (folder / word).mkdir()
        for i in range(12):
            utterance = tiny_model.recording([(0.3, word)], 0.8) * (0.07 + 0.01 * i)
            noisy = utterance + rng.normal(0, 0.03, len(utterance))
            soundfile.write(folder / word / f"{i}.wav", noisy, RATE_HZ)
    (folder / "talk" / "deeper").mkdir(parents=True)
    other = rng.normal(0, 0.03, 20 * RATE_HZ)
    for i, start_s in enumerate(range(2, 20, 3)):
        piece = tiny_model.recording([(0.2, "low")], 0.6) * (0.06 + 0.01 * i)
        other[start_s * RATE_HZ : start_s * RATE_HZ + len(piece)] += piece
    soundfile.write(folder / "talk" / "deeper" / "long.flac", other, RATE_HZ)
    (folder / "notes.txt").write_text("no recording")
    return folder


@pytest.fixture(scope="module", params=["plain", "verified"])
def served(
    request: pytest.FixtureRequest, address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return the address of a server with the tiny model, or with one that has a verifier."""
    if request.param == "plain":
        yield address
        return
    path = tmp_path_factory.mktemp("verified") / "verified.onnx"
    tiny_model.build(path, document=tiny_model.VERIFIED_METADATA, verifier=tiny_model.verifier())
    with serve_in_thread(model=(str(path),), **ADMIT_ALWAYS) as verified_address:
        yield verified_address


@pytest.mark.slow
def test_the_counts_equal_those_of_a_stream_with_that_threshold(served: str, folder: Path) -> None:
    address = served
    done = earmark("tune", folder, "--server", address, "--json", "--fa-per-hour", "400")
    assert done.returncode == 0
    assert done.stderr == f"earmark: {folder / 'notes.txt'}: left out: it is a text file\n"
    low, mid = json_lines(done.stdout)
    for line in (low, mid):
        check_line(line)
        assert line["recordings"] == 12
        assert line["other_audio_h"] == pytest.approx((20 + 12 * 0.8) / 3600, rel=0.01)
        missed, alarms = ([point[name] for point in line["curve"]] for name in ("missed", "alarms"))
        assert missed == sorted(missed)
        assert alarms == sorted(alarms, reverse=True)
    assert low["curve"][0]["alarms"] > low["proposed"]["alarms"]
    assert low["proposed"]["alarms"] <= 400 * low["other_audio_h"]
    for line in (low, mid):
        for point in [line["current"], line["proposed"]]:
            option = f"{line['keyword']}={point['threshold']}"

            def detected(*files: Path, option: str = option) -> list[str]:
                done = earmark("spot", *files, "--server", address, "--json", "--keyword", option)
                return [one["source"] for one in json_lines(done.stdout) if one["type"] == "detection"]

            recordings = sorted((folder / line["keyword"]).iterdir())
            assert len(recordings) - len(set(detected(*recordings))) == point["missed"]
            others = [path for path in folder.rglob("*.*a*") if path not in recordings]
            assert len(detected(*others)) == point["alarms"]


@pytest.mark.slow
def test_the_det_curve_and_the_options_are_printed(address: str, folder: Path) -> None:
    done = earmark("tune", folder, "--server", address, "--details")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "low: 12 recordings, 0.01 h of other audio"
    assert sum("current" in line for line in lines) == 2
    assert re.fullmatch(r"earmark listen --keyword low=0\.\d+ --keyword mid=0\.\d+", lines[-1])
    _, few, short = done.stderr.splitlines()
    assert "fewer than 30 recordings of low, mid" in few
    assert "0.5 per hour needs 6 h" in short
    # The more false alarms are allowed, the fewer keywords are missed.
    drawn = [line.split()[-1] for line in lines if re.search("[▁-█]$", line)]
    assert len(drawn) >= 2
    assert all(row == "".join(sorted(row, reverse=True)) for row in drawn)
    # The other keyword is never missed, so it has no chart.
    assert sum(line.endswith("  false alarms per hour") for line in lines[:-4]) == 1
    options = lines[-1].split()[2:]
    wav = next((folder / "low").iterdir())
    assert earmark("spot", wav, "--server", address, *options).returncode == 0


@pytest.mark.slow
def test_one_table_compares_the_thresholds(address: str, folder: Path) -> None:
    done = earmark("tune", folder, "--server", address)
    assert done.returncode == 0
    header, low, mid, command = done.stdout.splitlines()
    assert header.split("  ")[0] == "keyword"
    # No false alarm in half a minute shows no low rate.
    assert re.fullmatch(r"low +12 +0\.01 h +0\.6 -> 0\.\d+ +\d.* -> .*0 to 3\d\d", low)
    # There is too little other audio to lower a threshold, and too few recordings to raise it without need.
    assert re.fullmatch(r"mid +12 +0\.01 h +0\.6 \(kept\) +1 \(8%\) +0 to 3\d\d", mid)
    assert command.endswith("--keyword mid=0.6")
    assert "so no threshold is lowered" in done.stderr


@pytest.mark.slow
def test_the_det_curve_is_drawn_as_an_image_or_a_page(address: str, folder: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    for suffix in ("png", "svg", "html"):
        done = earmark("tune", folder, "--server", address, "-o", tmp_path / f"curve.{suffix}")
        assert done.returncode == 0
    assert image.imread(tmp_path / "curve.png")[..., :3].std() > 0.1
    assert "<svg" in (tmp_path / "curve.svg").read_text()
    page = (tmp_path / "curve.html").read_text()
    for text in (">low<", ">mid<", "current: 0.6", "proposed: 0.", done.stdout.splitlines()[-1]):
        assert text in page
    assert not re.search("""(?:src|href)=.(?!#)|@import|url\\((?!#)""", page)  # the page loads nothing


def test_an_unusable_image_name_is_rejected_before_any_recording_is_read(folder: Path) -> None:
    done = earmark("tune", folder, "--server", "127.0.0.1:9", "-o", "curve.gif")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give a name that ends in .png, .svg or .html" in done.stderr
    args = ["tune", str(folder), "--server", "127.0.0.1:9", "-o", "curve.png"]
    done = python_process(
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from earmark_cli.__main__ import main\n"
        f"sys.exit(main({args!r}))"
    )
    assert done.returncode == 1
    assert "(the extra `plot`)" in done.stderr


@pytest.mark.slow
def test_the_chart_is_omitted_where_the_encoding_lacks_its_characters(address: str, folder: Path) -> None:
    done = earmark_process("tune", folder, "--details", "--server", address, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "current" in done.stdout
    assert not any(line.endswith("  false alarms per hour") for line in done.stdout.splitlines()[:-4])


def test_an_unreadable_file_is_reported_and_the_others_count(address: str, tmp_path: Path) -> None:
    (tmp_path / "low").mkdir()
    soundfile.write(tmp_path / "low" / "a.wav", tiny_model.recording([(0.3, "low")], 0.8), RATE_HZ)
    (tmp_path / "low" / "b.wav").write_text("no sound")
    (tmp_path / "low" / "c.wav").symlink_to("absent.wav")
    (tmp_path / "low" / "d").symlink_to("x" * 300)
    done = earmark("tune", tmp_path, "--server", address)
    assert done.returncode == 1
    assert "b.wav: this is a text file" in done.stderr
    assert "c.wav: No such file or directory" in done.stderr
    assert "d: left out: File name too long" in done.stderr
    assert "no audio without the keyword, so the false alarms are unknown" in done.stderr
    # Without false alarms to measure, the calibrated threshold is proposed.
    assert done.stdout.splitlines()[-1] == "earmark listen --keyword low=0.6"


@pytest.mark.parametrize("others", [True, False])
def test_a_keyword_none_of_whose_recordings_can_be_read_is_reported(
    address: str, tmp_path: Path, others: bool
) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "a.wav").write_text("no sound")
    if others:
        (tmp_path / "mid").mkdir()
        soundfile.write(tmp_path / "mid" / "a.wav", tiny_model.recording([(0.3, "mid")], 0.8), RATE_HZ)
    done = earmark("tune", tmp_path, "--server", address)
    assert done.returncode == 1
    assert "earmark: no recording of low could be read, so it has no thresholds" in done.stderr
    assert ("earmark listen --keyword mid=" in done.stdout) == others


def test_an_unusable_folder_is_reported(address: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words" / "hello").mkdir(parents=True)
    soundfile.write(tmp_path / "words" / "hello" / "a.wav", np.zeros(RATE_HZ), RATE_HZ)
    for name, sentence in [
        ("absent", "is not a folder"),
        ("empty", "contains no recordings"),
        ("words", "no folder named after a keyword of the model (low, mid, high)"),
    ]:
        done = earmark("tune", tmp_path / name, "--server", address)
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr


def test_a_keyword_without_a_suitable_threshold_is_reported(address: str, tmp_path: Path) -> None:
    for folder in ("low", "talk"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", tiny_model.recording([(0.3, "low")], 0.8), RATE_HZ)
    done = earmark("tune", tmp_path, "--server", address)
    assert done.returncode == 0
    assert "earmark: no threshold of low reaches 0.5 false alarms per hour" in done.stderr


@pytest.mark.slow
def test_real_speech(data_dir: Path, tmp_path: Path) -> None:
    words = data_dir / "speech_commands"
    for word in ("stop", "go", "cat"):
        (tmp_path / word).mkdir()
        for path in sorted((words / word).iterdir())[:40]:
            (tmp_path / word / path.name).symlink_to(path)
    done = earmark("tune", tmp_path, "--json")
    lines = {line["keyword"]: line for line in json_lines(done.stdout)}
    assert set(lines) == {"stop", "go"}
    for line in lines.values():
        assert line["recordings"] == 40
        assert line["proposed"]["alarms"] == 0
        assert line["proposed"]["missed"] <= 0.3 * 40
    assert json.dumps(lines)
