"""`earmark review`, in the terminal and on its page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import soundfile
from earmark_cli.review.reviewed_clips import Clip, read_clips, write_missed
from earmark_client.errors import RecordingError
from support.deadlines import DEADLINE_S
from support.earmark_command import RATE_HZ, earmark, environment, running, samples

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def clips(address: str, recording: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    assert earmark("spot", recording, "--server", address, "--clips", folder).returncode == 0
    return folder


def verdicts(folder: Path) -> list[str | None]:
    return [json.loads(file.read_text()).get("verdict") for file in sorted(folder.glob("*.json"))]


def review(folder: Path, keys: str, *options: str, path: Path) -> Any:
    """Review with a player that writes which file it played."""
    player = path / "aplay"
    player.write_text(f'#!/bin/sh\necho "$2" >> {path}/played\n')
    player.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-m", "earmark_cli", "review", folder, *options],
        input=keys,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environment(PATH=f"{path}:{os.environ['PATH']}"),
        check=False,
    )


def test_one_key_is_the_verdict_of_a_clip(clips: Path, tmp_path: Path) -> None:
    done = review(clips, "rwm", path=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert verdicts(clips) == ["right", "wrong", "missed"]
    assert done.stdout.splitlines()[-1] == f"{clips}: 3 clips, 1 right, 1 wrong, 1 missed, 0 not reviewed"


@pytest.mark.parametrize("number", ["NaN", "Infinity", '"x"', "null", "1e305"])
def test_a_clip_whose_place_is_no_number_is_none(number: str, tmp_path: Path) -> None:
    for name, start in (("good", "1.5"), ("damaged", number)):
        (tmp_path / f"{name}.wav").touch()
        fields = f'"type": "clip", "confidence": 0.9, "start_s": 2.0, "end_s": 2.5, "clip_start_s": {start}'
        (tmp_path / f"{name}.json").write_text(f"{{{fields}}}")
    assert [clip.path.name for clip in read_clips(tmp_path)] == ["good.wav"]


def test_a_word_after_the_end_of_its_clip_is_not_written(tmp_path: Path) -> None:
    fields = {"type": "clip", "confidence": 0.9, "start_s": 2.0, "end_s": 2.5, "verdict": "missed"}
    soundfile.write(tmp_path / "short.wav", samples()[:RATE_HZ], RATE_HZ)
    (tmp_path / "short.json").write_text(json.dumps(fields))
    with pytest.raises(RecordingError, match=r"short\.wav ends before the word that was missed: delete it"):
        write_missed(read_clips(tmp_path), tmp_path / "words")
    (tmp_path / "short.json").write_text(json.dumps(fields | {"end_s": 1.0}))
    with pytest.raises(RecordingError, match="contains no clips"):
        read_clips(tmp_path)


def test_a_verdict_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(RecordingError, match=r"a\.json cannot be written: Is a directory"):
        Clip(tmp_path / "a.wav", {}).judge("right")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_port_of_a_page_requires_the_page(clips: Path) -> None:
    done = earmark("review", clips, "--port", "0")
    assert (done.returncode, done.stderr) == (2, "earmark: --port requires --page\n")


def test_a_named_pipe_is_no_clip(clips: Path, tmp_path: Path) -> None:
    os.mkfifo(clips / "live.json")
    assert review(clips, "rwm", path=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_review_continues_where_it_ended(clips: Path, tmp_path: Path) -> None:
    assert review(clips, "w\nq", path=tmp_path).returncode == 0
    assert verdicts(clips) == ["wrong", None, None]
    done = review(clips, "s\nr\n", path=tmp_path)
    assert verdicts(clips) == ["wrong", None, "right"]
    assert "1/2" in done.stdout
    review(clips, "sbbm", "--all", path=tmp_path)
    assert verdicts(clips) == ["missed", None, "right"]


def test_an_unknown_key_shows_the_keys(clips: Path, tmp_path: Path) -> None:
    done = review(clips, "x", path=tmp_path)
    assert "r right, w wrong" in done.stderr
    assert verdicts(clips) == [None] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "right", "line"),
    [
        (
            [0.5, 0.55, 0.6, 0.7, 0.9],
            [0.58, 0.8, 0.99],
            "with a threshold of 0.8, 1 of 5 wrong detections remain, and 2 of 3 right ones",
        ),
        (
            [0.5, 0.5, 0.5, 0.9],
            [],
            "with a threshold of 0.7, 1 of 4 wrong detections remain, and 0 of 0 right ones",
        ),
        (
            [0.5, 0.9, 0.9, 0.9],
            [0.95],
            "with a threshold of 0.95, 0 of 4 wrong detections remain, and 1 of 1 right ones",
        ),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [], "with a threshold of 0.45, 2 of 6 wrong"),
        ([0.9995, 0.9996, 0.9997, 0.9998], [], "with a threshold of 0.9998, 1 of 4 wrong"),
        ([0.5, 0.6, 0.7], [0.9], None),
        ([0.5, 0.5, 0.5, 0.5], [0.9], None),
    ],
)
def test_the_review_states_a_threshold_with_a_third_of_the_wrong_detections(
    clips: Path, wrong: list[float], right: list[float], line: str | None
) -> None:
    file = sorted(clips.glob("*.json"))[0]
    fields = json.loads(file.read_text())
    verdicts = [(one, "wrong") for one in wrong] + [(one, "right") for one in right]
    for number, (confidence, verdict) in enumerate(verdicts):
        copy = clips / f"copy-{number}.json"
        copy.write_text(json.dumps(fields | {"confidence": confidence, "verdict": verdict}))
        copy.with_suffix(".wav").write_bytes(file.with_suffix(".wav").read_bytes())
    done = review(clips, "q", path=clips.parent)
    assert done.returncode == 0
    last = done.stdout.splitlines()[-1]
    if line is None:
        assert last.endswith("not reviewed")
    else:
        assert last.startswith(f"{fields['keyword']}: {line}")


def test_a_folder_without_clips_is_reported(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[1")
    (tmp_path / "others.json").write_text("[1]")
    done = earmark("review", tmp_path)
    assert done.returncode == 1
    assert "contains no clips" in done.stderr
    done = earmark("review", tmp_path / ("x" * 300))
    assert done.returncode == 1
    assert "x cannot be read: File name too long" in done.stderr


def request(url: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(asked, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_page_plays_clips_and_saves_verdicts(clips: Path) -> None:
    with running("review", clips, "--page", "--port", "0") as process:
        assert process.stderr is not None
        found = re.search(rb"http://\S+/", process.stderr.readline())
        assert found
        url = found[0].decode()
        assert b"Review" in request(url)[1]
        listed = json.loads(request(f"{url}clips.json")[1])
        assert [one["keyword"] for one in listed] == ["low", "mid", "high"]
        name = listed[1]["file"]
        assert request(f"{url}clip/{name}") == (200, (clips / name).read_bytes())
        as_json = {"Content-Type": "application/json"}
        assert request(f"{url}verdict", {"file": name, "verdict": "wrong"}, **as_json)[0] == 200
        assert verdicts(clips) == [None, "wrong", None]
        for bad in ({"file": "../x", "verdict": "right"}, {"file": name, "verdict": "x"}, [], {}):
            assert request(f"{url}verdict", bad, **as_json)[0] == 400
        assert request(f"{url}verdict", {"file": name, "verdict": "right"})[0] == 400
        assert request(f"{url}clip/..%2F..%2Fetc%2Fpasswd")[0] == 404
        # Another site, and a name that an attacker lets point here.
        assert request(url, Host="evil.example")[0] == 403
        other = {**as_json, "Origin": "http://evil.example"}
        assert request(f"{url}verdict", {"file": name, "verdict": "right"}, **other)[0] == 403
        assert verdicts(clips) == [None, "wrong", None]


def test_the_words_that_were_missed_become_recordings(clips: Path, tmp_path: Path) -> None:
    review(clips, "mrm", path=tmp_path)
    done = review(clips, "", "--missed-to", str(tmp_path / "recordings"), path=tmp_path)
    assert done.returncode == 0
    files = {path.name: list(path.iterdir()) for path in (tmp_path / "recordings").iterdir()}
    # Training expects a folder for each of several keywords.
    assert {k: [path.name.split("-")[-1] for path in files[k]] for k in files} == {
        "low": ["low.wav"],
        "high": ["high.wav"],
    }
    for (file,) in files.values():
        fields = json.loads((clips / file.name).with_suffix(".json").read_text())
        word_s = fields["end_s"] - fields["start_s"]
        assert word_s < soundfile.info(file).duration <= word_s + 0.81


def test_the_words_of_one_keyword_need_no_folder_of_their_own(clips: Path, tmp_path: Path) -> None:
    first, *others = sorted(clips.glob("*.json"))
    for other in others:
        other.unlink()
    review(clips, "m", path=tmp_path)
    assert earmark("review", clips, "--missed-to", tmp_path / "words").returncode == 0
    assert [path.name for path in (tmp_path / "words").iterdir()] == [first.with_suffix(".wav").name]


@pytest.mark.parametrize("keyword", ["..", "../up", "/up", "a\0b", "\ud800", "", None])
def test_a_keyword_does_not_lead_out_of_the_folder(keyword: str | None, tmp_path: Path) -> None:
    fields = {"type": "clip", "confidence": 0.9, "start_s": 0.1, "end_s": 0.3, "verdict": "missed"}
    for name, of_clip in (("one", keyword), ("two", "other")):
        soundfile.write(tmp_path / f"{name}.wav", samples()[:RATE_HZ], RATE_HZ)
        (tmp_path / f"{name}.json").write_text(json.dumps(fields | {"keyword": of_clip}))
    write_missed(read_clips(tmp_path), tmp_path / "words" / "new")
    assert len(list((tmp_path / "words").iterdir())) == 1
    assert sorted(path.name for path in (tmp_path / "words" / "new").glob("*/*.wav")) == [
        "one.wav",
        "two.wav",
    ]


def test_words_of_float32_clips_are_scaled(address: str, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    stdin = (samples() / 32768).astype("<f4").tobytes()
    options = ["--encoding", "float32", "--server", address, "--clips", clips]
    assert earmark("spot", "-", *options, stdin=stdin).returncode == 0
    review(clips, "mmm", "--missed-to", str(tmp_path / "recordings"), path=tmp_path)
    for file in (tmp_path / "recordings").glob("*/*.wav"):
        fields = json.loads((clips / file.name).with_suffix(".json").read_text())
        word, _ = soundfile.read(file, dtype="int16")
        first = round(max(fields["clip_start_s"], fields["start_s"] - 0.4) * RATE_HZ)
        assert (word == samples()[first : first + len(word)]).all()


def test_words_do_not_overwrite_the_clips(clips: Path, tmp_path: Path) -> None:
    review(clips, "mmm", path=tmp_path)
    before = {file: file.read_bytes() for file in clips.iterdir()}
    (tmp_path / "link").symlink_to(clips)
    for folder in (clips, clips / "../clips", tmp_path / "link"):
        done = earmark("review", clips, "--missed-to", folder)
        assert done.returncode == 2
        assert "contains the clips: give another folder" in done.stderr
    assert before == {file: file.read_bytes() for file in clips.iterdir()}


def test_words_do_not_overwrite_other_files(clips: Path, tmp_path: Path) -> None:
    review(clips, "mmm", path=tmp_path)
    words = tmp_path / "words"
    assert earmark("review", clips, "--missed-to", words).returncode == 0
    first, second, third = sorted(words.glob("*/*.wav"))
    first.write_bytes(b"another word")
    content = second.read_bytes()
    third.unlink()
    done = earmark("review", clips, "--missed-to", words)
    assert done.returncode == 1
    assert (
        f"{words}: files with another content were not overwritten: 1, the first is "
        f"{first.relative_to(words)}: " in done.stderr
    )
    assert first.read_bytes() == b"another word"
    assert second.read_bytes() == content
    assert third.exists()
