from __future__ import annotations

import numpy as np
import pytest
from earmark_training.evaluation.clip_protocols import (
    THIRTY_FIVE,
    TWELVE,
    ClassifiedClips,
    ProtocolResult,
    results_by_protocol,
)

KNOWN = ("yes", "no", "up", "down", "left", "right", "stop", "go", "one")
LABELS = ("_silence_", "_unknown_", *KNOWN)


def classified(*pairs: tuple[str, str, int]) -> ClassifiedClips:
    """Return clips given as (true label, predicted label, number of clips)."""
    true = [t for t, _, n in pairs for _ in range(n)]
    return ClassifiedClips(tuple(true), tuple(p for _, p, n in pairs for _ in range(n)))


def results(clips: ClassifiedClips, silences: ClassifiedClips | None = None) -> dict[str, ProtocolResult]:
    return {r.protocol: r for r in results_by_protocol(clips, silences or ClassifiedClips((), ()), LABELS)}


def test_other_words_are_unknown_among_the_models_own_classes():
    by_protocol = results(
        classified(("yes", "yes", 3), ("yes", "no", 1), ("cat", "_unknown_", 2), ("dog", "up", 1)),
        classified(("_silence_", "_silence_", 2)),
    )
    assert list(by_protocol) == ["own"]  # the data set's words are not there
    own = by_protocol["own"]
    assert (own.clips, own.accuracy) == (9, pytest.approx(7 / 9))
    assert own.document()["accuracy_by_class"] == {
        "_silence_": 1.0, "_unknown_": pytest.approx(2 / 3, abs=1e-4), "yes": 0.75,
    }  # fmt: skip
    assert "2 other words" in own.note


def test_a_test_archive_is_used_without_the_words_that_the_model_lacks():
    archive = classified(
        ("_silence_", "_silence_", 4), ("_silence_", "up", 1),
        ("_unknown_", "one", 3),  # a word that the model knows and the protocol does not
        ("_unknown_", "go", 1),
        *((w, w, 5) for w in TWELVE if w in LABELS),
        ("on", "_unknown_", 6), ("off", "up", 2),
    )  # fmt: skip
    (twelve,) = results(archive).values()
    assert twelve.protocol == "12"
    assert (twelve.clips, twelve.left_out) == (5 + 4 + 40, 8)
    assert twelve.accuracy == pytest.approx(47 / 49)
    document = twelve.document()
    assert document["accuracy_if_left_out_are_wrong"] == pytest.approx(47 / 57, abs=1e-4)
    assert document["accuracy_by_class"]["_unknown_"] == 0.75
    assert "does not know on and off, so their 8 clips are left out (10 of 12 classes)" in twelve.note


def test_a_tenth_of_unknown_words_and_of_silences_is_drawn_from_the_data_set():
    clips = classified(*((w, w, 10) for w in TWELVE if w in LABELS), ("on", "up", 10), ("off", "up", 10),
                     ("one", "one", 30), ("bed", "_unknown_", 30))  # fmt: skip
    silences = classified(("_silence_", "_silence_", 50))
    twelve = results(clips, silences)["12"]
    rows = dict(zip(twelve.classes, twelve.confusion.sum(axis=1).tolist(), strict=True))
    assert rows["_unknown_"] == rows["_silence_"] == 10
    assert twelve.accuracy == 1.0  # "one" is unknown here, and so is its answer
    assert twelve.left_out == 20
    again = results(clips, silences)["12"]
    np.testing.assert_array_equal(again.confusion, twelve.confusion)


def test_the_words_that_the_model_knows_are_counted_of_35():
    clips = classified(
        *((w, w if w in LABELS else "_unknown_", 2) for w in THIRTY_FIVE), ("one", "_unknown_", 2)
    )
    result = results(clips)["35"]
    assert (result.clips, result.left_out) == (2 * len(KNOWN) + 2, 2 * (35 - len(KNOWN)))
    assert result.accuracy == pytest.approx(18 / 20)
    assert f"the {len(KNOWN)} of 35 words" in result.note
    assert "no clips of" not in result.note


def test_the_note_names_words_without_clips():
    clips = classified(*((w, "yes", 1) for w in TWELVE))
    assert "there are no clips of backward, bed" in results(clips)["35"].note


def test_the_word_lists_have_the_data_sets_length():
    assert len(set(THIRTY_FIVE)) == 35
    assert len(set(TWELVE)) == 10
