from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_training.keyword import negatives
from earmark_training.keyword.negatives import contains_keyword, find_negatives
from earmark_training.keyword.recordings import RecordingsError
from support.synthetic_words import BANANA, RATE, say, write_speech

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _little_speech_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "MIN_S", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a computer", True),
        ("THE COMPUTER'S KEYS", True),
        ("two computers", True),
        ("computing", False),
        ("microcomputer", False),
        ("", False),
    ],
)
def test_a_transcript_contains_the_keyword_as_a_word_or_the_start_of_one(text: str, expected: bool):
    assert contains_keyword(text, "computer") == expected


def test_a_transcript_contains_a_phrase_as_a_whole():
    assert contains_keyword("oh smart mirror, tell me", "Smart Mirror")
    assert not contains_keyword("a smart and new mirror", "smart mirror")


def test_vowel_signs_are_parts_of_words():
    assert contains_keyword("वह किताब है", "किताब")
    assert not contains_keyword("वह कताब है", "किताब")


def test_a_keyword_in_a_script_without_spaces_may_be_anywhere_in_a_transcript():
    assert contains_keyword("请打开电脑", "电脑")
    assert contains_keyword("ねえ電気をつけて", "電気")
    assert not contains_keyword("请打开灯", "电脑")


@pytest.mark.parametrize("text", ["I DON'T KNOW", "I don’t know"])
@pytest.mark.parametrize("keyword", ["don't", "don’t"])
def test_both_forms_of_the_apostrophe_are_the_same(text: str, keyword: str):
    assert contains_keyword(text, keyword)


def test_a_file_is_used_once_and_no_recording_of_the_keyword(tmp_path: Path):
    for name, level in (("computer", 0.1), ("speech", 0.2)):
        (tmp_path / name).mkdir()
        for i in range(3):
            soundfile.write(tmp_path / name / f"{i}.wav", np.full(RATE, level), RATE)
    (tmp_path / "speech" / "link.wav").symlink_to(tmp_path / "computer" / "0.wav")
    recordings = sorted((tmp_path / "computer").iterdir())
    folders = [tmp_path, tmp_path / "speech"]
    found = find_negatives(folders, ["computer"], recordings=recordings, seed=1)
    assert [one.path for one in found.files] == [tmp_path / "speech" / f"{i}.wav" for i in range(3)]
    assert found.recordings == 3
    with pytest.raises(RecordingsError, match="nothing of --negatives is left: 3 files are recordings"):
        find_negatives([tmp_path / "computer"], ["computer"], recordings=recordings, seed=1)


def test_a_copy_of_a_recording_of_the_keyword_is_known_by_its_samples(tmp_path: Path):
    words, speech = tmp_path / "computer", tmp_path / "speech"
    words.mkdir()
    speech.mkdir()
    for i in range(3):
        word = say(BANANA, i, 1)[:RATE]
        soundfile.write(words / f"{i}.wav", word, RATE)
        soundfile.write(speech / f"as_long_{i}.wav", say(BANANA, i + 10, 1)[:RATE], RATE)
    (speech / "same_bytes.wav").write_bytes((words / "0.wav").read_bytes())
    samples, _ = soundfile.read(words / "1.wav", dtype="int16")
    soundfile.write(speech / "same_samples.flac", samples, RATE)
    (words / "damaged.wav").write_text("no audio")  # it is left out, with its own reason
    recordings = sorted(words.iterdir())
    found = find_negatives([speech], ["computer"], recordings=recordings, seed=1)
    assert [one.path.name for one in found.files] == [f"as_long_{i}.wav" for i in range(3)]
    assert found.recordings == 2
    for path in speech.glob("as_long*"):
        path.unlink()
    with pytest.raises(RecordingsError, match="nothing of --negatives is left: 2 files are recordings"):
        find_negatives([speech], ["computer"], recordings=recordings, seed=1)


def test_utterances_with_the_keyword_are_left_out(tmp_path: Path):
    folder = write_speech(tmp_path / "speech", 3, 4)
    soundfile.write(folder / "radio.wav", say(BANANA, 1, 1), RATE)
    listing = folder / "2" / "1" / "2-1.trans.txt"
    listing.write_text("\n" + listing.read_text() + "\n\n")  # empty lines are not utterances
    listing = folder / "1" / "1" / "1-1.trans.txt"  # a tab, and the byte order mark of an editor
    listing.write_text("\ufeff" + listing.read_text().replace(" ", "\t", 1) + "\n../1 A PATH\n. A DOT")
    found = find_negatives([folder], ["computer"], seed=1)
    assert found.left_out == 3
    assert len(found.files) == 3 * 3 + 1
    assert {f.speaker for f in found.files if f.text} == {"0", "1", "2"}


def test_utterances_with_a_homophone_of_the_keyword_are_left_out(tmp_path: Path):
    folder = write_speech(tmp_path / "speech", 3, 4)
    found = find_negatives([folder], ["ghose"], homophones={"goes"}, seed=1)
    assert (found.left_out, len(found.files)) == (9, 3)
    whole_words = find_negatives([folder], ["gow"], homophones={"go"}, seed=1)
    assert (whole_words.left_out, len(whole_words.files)) == (0, 12)


def test_no_more_than_the_hours_are_used_also_of_one_long_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(negatives, "MAX_HOURS", 30 / 3600)
    soundfile.write(tmp_path / "long.wav", np.zeros(40 * RATE), RATE)
    assert [one.max_s for one in find_negatives([tmp_path], ["computer"], seed=1).files] == [30]
    (tmp_path / "long.wav").unlink()
    for i in range(5):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(12 * RATE), RATE)
    limits = [one.max_s for one in find_negatives([tmp_path], ["computer"], seed=1).files]
    assert sorted(limits, key=str) == [6, None, None]


def test_a_folder_without_audio_is_rejected(tmp_path: Path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(RecordingsError, match="contains no readable audio"):
        find_negatives([tmp_path], ["computer"], seed=1)


def test_too_little_speech_is_found_before_the_work(tmp_path: Path):
    soundfile.write(tmp_path / "short.wav", np.zeros(RATE // 2), RATE)
    with pytest.raises(RecordingsError, match=r"is only 0 s long: at least 1 s are needed.*--negatives"):
        find_negatives([tmp_path], ["computer"], seed=1)


def test_a_damaged_file_is_named(tmp_path: Path):
    (tmp_path / "bad.wav").write_text("no audio")
    with pytest.raises(
        RecordingsError, match=r"bad.wav cannot be read: This is a text file.* Correct or remove"
    ):
        find_negatives([tmp_path], ["computer"], seed=1)
