from __future__ import annotations

import itertools

from earmark_training.data.corpus import Recording
from earmark_training.keyword.training_set import cut_into_pieces, folds, hold_out
from support.synthetic_words import RATE


def speech(count: int, speakers: int) -> list[Recording]:
    length = 10 * RATE
    return [
        Recording("speech", "training", "", i * length, length, None, f"s{i % speakers}")
        for i in range(count)
    ]


def test_all_recordings_of_a_speaker_are_held_out_or_none():
    training, held_out = hold_out(speech(100, 10), seed=1)
    assert not {r.speaker for r in training} & {r.speaker for r in held_out}
    assert 20 <= len(held_out) <= 40
    assert len(training) + len(held_out) == 100


def test_recordings_of_few_speakers_are_split():
    training, held_out = hold_out(speech(100, 1), seed=1)
    assert (len(training), len(held_out)) == (70, 30)


def test_long_recordings_are_cut_into_pieces_without_loss():
    pieces = cut_into_pieces([Recording("speech", "training", "", 7, 100 * RATE)])
    assert [p.length for p in pieces] == [30 * RATE] * 3 + [10 * RATE]
    assert pieces[0].start == 7
    assert all(b.start == a.start + a.length for a, b in itertools.pairwise(pieces))


def test_every_recording_is_in_one_fold():
    parts = folds(23, 3, seed=4)
    assert sorted(i for part in parts for i in part) == list(range(23))
    assert {len(p) for p in parts} == {7, 8}
