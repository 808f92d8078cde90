from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from earmark_training.data.corpus import Recording
from earmark_training.keyword.recordings import RecordingsError
from earmark_training.keyword.training_set import cut_into_pieces, folds, hold_out
from support.synthetic_words import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence


def speech(count: int, speakers: int, seconds: int = 10) -> list[Recording]:
    length = seconds * RATE
    return [
        Recording("speech", "training", "", i * length, length, None, f"s{i % speakers}")
        for i in range(count)
    ]


def test_all_recordings_of_a_speaker_are_held_out_or_none():
    training, held_out = hold_out(speech(100, 10), seed=1)
    assert not {r.speaker for r in training} & {r.speaker for r in held_out}
    assert 20 <= len(held_out) <= 40
    assert len(training) + len(held_out) == 100


@pytest.mark.parametrize(
    ("speakers", "seed", "training_speakers", "held_out_speakers"),
    [
        (6, 1, "s0 s2 s1 s3", "s5 s4"),
        (6, 2, "s2 s4 s0 s1", "s5 s3"),
        (10, 1, "s7 s0 s1 s2 s9 s3", "s5 s6 s8 s4"),
        (10, 3, "s2 s1 s4 s7 s3 s8", "s6 s5 s9 s0"),
    ],
)
def test_the_same_seed_holds_out_the_same_speakers_in_every_version(
    speakers: int, seed: int, training_speakers: str, held_out_speakers: str
):
    recordings = speech(60, speakers, 70)
    for part, expected in zip(
        hold_out(recordings, seed), (training_speakers, held_out_speakers), strict=True
    ):
        names = expected.split()
        assert part == cut_into_pieces(r for name in names for r in recordings if r.speaker == name)


def seconds(recordings: Sequence[Recording]) -> float:
    return sum(r.length for r in recordings) / RATE


@pytest.mark.parametrize("speakers", [2, 3, 5])
def test_few_speakers_are_not_on_both_sides(speakers: int):
    training, held_out = hold_out(speech(60, speakers, 70), seed=1)
    assert training
    assert held_out
    assert not {r.speaker for r in training} & {r.speaker for r in held_out}


def test_files_of_one_speaker_are_not_on_both_sides():
    training, held_out = hold_out(speech(10, 1, 100), seed=1)
    assert (seconds(training), seconds(held_out)) == (700, 300)
    assert not {r.start // (100 * RATE) for r in training} & {r.start // (100 * RATE) for r in held_out}


def test_a_speaker_with_most_of_the_speech_is_split_by_file():
    recordings = [replace(r, speaker="s0" if i < 40 else "s1") for i, r in enumerate(speech(50, 1))]
    training, held_out = hold_out(recordings, seed=1)
    assert (len(training), len(held_out)) == (35, 15)


@pytest.mark.parametrize("length_s", [60, 61, 95, 1000])
def test_one_file_is_split_by_piece_and_at_most_half_of_it_is_held_out(length_s: int):
    training, held_out = hold_out(speech(1, 1, length_s), seed=1)
    assert 0 < seconds(held_out) <= length_s / 2
    assert seconds(training) + seconds(held_out) == length_s


@pytest.mark.parametrize("recordings", [[], speech(1, 1, 30), speech(5, 5, 11)])
def test_too_little_speech_is_rejected(recordings: list[Recording]):
    with pytest.raises(RecordingsError, match=r"s long: at least 60 s are needed.*--negatives"):
        hold_out(recordings, seed=1)


def test_long_recordings_are_cut_into_pieces_without_loss():
    pieces = cut_into_pieces([Recording("speech", "training", "", 7, 100 * RATE)])
    assert [p.length for p in pieces] == [30 * RATE] * 3 + [10 * RATE]
    assert pieces[0].start == 7
    assert all(b.start == a.start + a.length for a, b in itertools.pairwise(pieces))


def test_every_recording_is_in_one_fold():
    parts = folds(23, 3, seed=4)
    assert sorted(i for part in parts for i in part) == list(range(23))
    assert {len(p) for p in parts} == {7, 8}
