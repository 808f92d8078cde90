"""What recordings of a keyword must be like, and what is said about those that are not."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark_training.data.corpus import Recording
from earmark_training.data.endpointing import locate_word
from earmark_training.keyword.material import folds, hold_out, in_pieces
from earmark_training.keyword.negatives import find_negatives, holds
from earmark_training.keyword.outliers import ONE_VOICE_DB, voice_spread_db
from earmark_training.keyword.recordings import RecordingsError, Take, read_takes
from earmark_training.keyword.threshold import threshold_at
from support.synthetic_words import BANANA, COMPUTER, RATE, say, write_recordings, write_speech


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("twelve"), COMPUTER, 12)


@pytest.fixture
def recordings(twelve: Path, tmp_path: Path) -> Path:
    return shutil.copytree(twelve, tmp_path / "computer")


def test_good_recordings_are_read_with_the_place_of_the_word(recordings: Path):
    takes, rejected = read_takes(recordings)
    assert len(takes) == 12
    assert not rejected
    for take in takes:
        start, end = take.word
        assert 0.3 < (end - start) / RATE < 0.75
        assert np.abs(take.samples[start:end]).max() == np.abs(take.samples).max()


def test_any_rate_and_number_of_channels_will_do(recordings: Path):
    (recordings / "00.wav").unlink()
    samples = np.repeat(say(COMPUTER, 0, 0), 3)  # 48 kHz
    soundfile.write(recordings / "stereo.flac", np.stack((samples, samples), axis=1), 48_000)
    takes, _ = read_takes(recordings)
    (stereo,) = (t for t in takes if t.path.name == "stereo.flac")
    assert stereo.samples.shape == (len(samples) // 3,)


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path):
    with pytest.raises(RecordingsError, match=r"nowhere is no folder: name the folder"):
        read_takes(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("to do")
    with pytest.raises(RecordingsError, match="holds no recordings: put one WAV or FLAC file per utterance"):
        read_takes(tmp_path)


def test_too_few_recordings_are_counted_and_the_number_needed_is_said(recordings: Path):
    for path in sorted(recordings.glob("*.wav"))[5:]:
        path.unlink()
    with pytest.raises(RecordingsError, match=r"holds 5 usable recordings, and at least 8 .* \(100 or more"):
        read_takes(recordings)


def spoil_text(path: Path) -> None:
    path.write_text("no audio")


def spoil_silence(path: Path) -> None:
    soundfile.write(path, np.zeros(RATE, np.float32), RATE)


def spoil_clipped(path: Path) -> None:
    samples, _ = soundfile.read(path)
    soundfile.write(path, np.clip(10 * samples, -1, 1), RATE)


def spoil_long(path: Path) -> None:
    soundfile.write(path, np.tile(say(COMPUTER, 3, 3), 8), RATE)


def spoil_short(path: Path) -> None:
    soundfile.write(path, say(COMPUTER, 3, 3)[: RATE // 5], RATE)


def spoil_noise(path: Path) -> None:
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)


SPOILT = {
    "no audio file": spoil_text,
    "silent": spoil_silence,
    "clipped": spoil_clipped,
    "cut it into pieces": spoil_long,
    "too short": spoil_short,
    "no word stands out": spoil_noise,
}


@pytest.mark.parametrize("reason", SPOILT)
def test_a_bad_recording_is_left_out_and_many_are_refused(recordings: Path, reason: str):
    SPOILT[reason](recordings / "03.wav")
    takes, (rejected,) = read_takes(recordings)
    assert len(takes) == 11
    assert rejected.path.name == "03.wav"
    assert reason in rejected.reason
    for name in ("04.wav", "05.wav"):
        SPOILT[reason](recordings / name)
    with pytest.raises(RecordingsError, match=f"3 of 12 recordings .*(?s:.*)03.wav: .*{reason}"):
        read_takes(recordings)


def test_formats_that_cannot_be_read_and_copies_are_named(recordings: Path):
    (recordings / "memo.m4a").write_bytes(b"\0")
    shutil.copy(recordings / "01.wav", recordings / "again.wav")
    takes, rejected = read_takes(recordings)
    assert len(takes) == 12
    reasons = {r.path.name: r.reason for r in rejected}
    assert reasons["memo.m4a"] == "m4a files cannot be read: convert it to WAV or FLAC"
    assert reasons["again.wav"] == "it is the same recording as 01.wav"


def _take(samples: np.ndarray) -> Take:
    word = locate_word(samples, RATE)
    assert word is not None
    return Take(Path("x.wav"), samples, word)


def test_one_voice_is_told_from_several():
    several = [_take(say(COMPUTER, i, i)) for i in range(10)]
    one = [_take(say(COMPUTER, 1, i)) for i in range(10)]
    assert voice_spread_db(one) < ONE_VOICE_DB < voice_spread_db(several)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("a computer", True),
        ("THE COMPUTER'S KEYS", True),
        ("two computers", True),
        ("computing", False),
        ("microcomputer", False),
        ("", False),
    ],
)
def test_transcripts_that_hold_the_keyword(text: str, held: bool):
    assert holds(text, "computer") == held


def test_a_phrase_is_held_as_a_whole():
    assert holds("oh smart mirror, tell me", "Smart Mirror")
    assert not holds("a smart and new mirror", "smart mirror")


def test_negatives_are_freed_of_utterances_with_the_keyword(tmp_path: Path):
    folder = write_speech(tmp_path / "speech", 3, 4)
    soundfile.write(folder / "radio.wav", say(BANANA, 1, 1), RATE)
    listing = folder / "2" / "1" / "2-1.trans.txt"
    listing.write_text("\n" + listing.read_text() + "\n\n")  # empty lines are no utterances
    found = find_negatives([folder], "computer", seed=1)
    assert found.left_out == 3
    assert len(found.files) == 3 * 3 + 1
    assert {f.speaker for f in found.files if f.text} == {"0", "1", "2"}


def test_negatives_without_audio_are_refused(tmp_path: Path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(RecordingsError, match="holds no audio that can be read"):
        find_negatives([tmp_path], "computer", seed=1)


def test_a_damaged_negative_is_named(tmp_path: Path):
    (tmp_path / "bad.wav").write_text("no audio")
    with pytest.raises(RecordingsError, match=r"bad.wav cannot be read: convert it"):
        find_negatives([tmp_path], "computer", seed=1)


def _speech(count: int, speakers: int) -> list[Recording]:
    length = 10 * RATE
    return [
        Recording("speech", "training", "", i * length, length, None, f"s{i % speakers}")
        for i in range(count)
    ]


def test_speakers_are_held_out_whole():
    training, held_out = hold_out(_speech(100, 10), seed=1)
    assert not {r.speaker for r in training} & {r.speaker for r in held_out}
    assert 20 <= len(held_out) <= 40
    assert len(training) + len(held_out) == 100


def test_few_speakers_are_shared():
    training, held_out = hold_out(_speech(100, 1), seed=1)
    assert (len(training), len(held_out)) == (70, 30)


def test_long_recordings_are_cut_into_pieces_without_loss():
    pieces = in_pieces([Recording("speech", "training", "", 7, 100 * RATE)])
    assert [p.length for p in pieces] == [30 * RATE] * 3 + [10 * RATE]
    assert pieces[0].start == 7
    assert all(b.start == a.start + a.length for a, b in itertools.pairwise(pieces))


def test_every_recording_is_left_out_of_one_check():
    parts = folds(23, 3, seed=4)
    assert sorted(i for part in parts for i in part) == list(range(23))
    assert {len(p) for p in parts} == {7, 8}


@pytest.mark.parametrize(("rate", "hours"), [(0.5, 2.3), (0.5, 0.5), (5.0, 3.0)])
def test_a_threshold_keeps_the_rate_on_other_speech_of_the_same_kind(rate: float, hours: float):
    rng = np.random.default_rng(0)

    def peaks(hours: float) -> np.ndarray:
        odds = -3 + rng.exponential(0.8, rng.poisson(2000 * hours))
        return 1 / (1 + np.exp(-odds))

    given = [(peaks(100) >= threshold_at(peaks(hours), hours, rate)).sum() / 100 for _ in range(60)]
    assert rate / 2 < np.median(given) < 2 * rate
    assert np.percentile(given, 90) < 6 * rate
