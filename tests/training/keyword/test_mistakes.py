"""`--mistakes`: reviewed false alarms become negatives, and words that were missed become recordings."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_training.data.corpus import SourceFile
from earmark_training.keyword.examples import KeywordExampleMaker, KeywordMix
from earmark_training.keyword.fine_tune import FIRST_KEYWORD, fine_tune, score
from earmark_training.keyword.mistakes import read_mistakes, write_missed_words
from earmark_training.keyword.pipeline import KeywordRequest, create_model
from earmark_training.keyword.recordings import RecordingsError
from earmark_training.keyword.training_set import collect
from earmark_training.model.onnx_file import load_network
from support.synthetic_words import COMPUTER, RATE, say
from support.tiny_training import BASE_SHAPE, FINE_TUNE_RECIPE

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.network import Network

COMMUTER = (*COMPUTER[:2], (700.0, 1200.0))  # a word that sounds like the keyword


def clip(
    folder: Path, name: str, verdict: str | None, samples: np.ndarray | None = None, **fields: object
) -> None:
    """Write a reviewed clip of 3 s as `--clips` does: the word is from 1.5 s to 2.0 s."""
    folder.mkdir(exist_ok=True)
    if samples is None:
        samples = np.random.default_rng(1).normal(0, 0.1, 3 * RATE)
    soundfile.write(folder / f"{name}.wav", samples, RATE)
    document = {"type": "clip", "keyword": "computer", "start_s": 11.5, "end_s": 12.0, "clip_start_s": 10.0}
    (folder / f"{name}.json").write_text(json.dumps(document | {"verdict": verdict} | fields))


def test_wrong_and_missed_clips_are_read(tmp_path: Path) -> None:
    for name, verdict in (("a", "wrong"), ("b", "right"), ("c", None), ("d", "missed"), ("e", "unknown")):
        clip(tmp_path, name, verdict)
    clip(tmp_path, "f", "wrong", end_s=11.0)  # no length
    clip(tmp_path, "g", "wrong", clip_start_s="now")
    clip(tmp_path, "m", "missed", end_s=math.inf)
    clip(tmp_path, "n", "missed", end_s=1e305)
    clip(tmp_path, "h", "wrong")
    (tmp_path / "h.wav").unlink()
    for name, text in (("i", "{"), ("j", "[1]"), ("k", "[" * 100_000)):
        (tmp_path / f"{name}.json").write_text(text)
    os.mkfifo(tmp_path / "l.json")  # opening it waits for a writer
    found = read_mistakes([tmp_path], ["computer"])
    assert [(one.path.name, one.is_missed) for one in found] == [("a.wav", False), ("d.wav", True)]
    assert {one.word for one in found} == {(1.5 * RATE, 2 * RATE)}


def test_false_alarms_are_neither_trained_on_as_speech_nor_measured(tmp_path: Path) -> None:
    for name, verdict in (("a", "wrong"), ("b", "missed"), ("c", "wrong")):
        clip(tmp_path / "clips", name, verdict)
    paths = [tmp_path / f"{i}.wav" for i in range(11)]
    for i, path in enumerate(paths):
        soundfile.write(path, np.tile(say(COMPUTER, i, i), 1 if i < 3 else 6), RATE)
    speech = [SourceFile(path, "speech", "training", "", path.stem) for path in paths[3:]]
    mistakes = read_mistakes([tmp_path / "clips"], ["computer"])
    found = collect({"computer": paths[:3]}, speech, tmp_path / "scratch", mistakes=mistakes, seed=1)
    assert [(one.length, one.word) for one in found.mistakes] == [(3 * RATE, (1.5 * RATE, 2 * RATE))] * 2
    assert len(found.recordings) == 3
    assert len(found.speech) + len(found.held_out) == 8
    assert not {one.start for one in found.mistakes} & {one.start for one in (*found.speech, *found.held_out)}


def with_mistake(training_set: TrainingSet) -> TrainingSet:
    """Return the training set with its longest speech as the mistake."""
    longest = max(training_set.speech, key=lambda one: one.length)
    return replace(training_set, mistakes=(replace(longest, word=(RATE, 2 * RATE)),))


@pytest.mark.slow
def test_mistakes_have_a_share_of_each_batch_beside_the_mined_negatives(training_set: TrainingSet) -> None:
    mix = KeywordMix(
        size=50, keyword=0.2, part=0.0, confusable=0.0, hard_negative=0.2, mistake=0.4, noise=0.2, add_noise=0
    )
    maker = KeywordExampleMaker(with_mistake(training_set), BASE_SHAPE, mix, seed=1)
    mined = [(training_set.speech[0], RATE)] * 5
    kinds = maker._kinds(mined)
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "keyword": 10, "hard_negative": 10, "mistake": 20, "noise": 10,
    }  # fmt: skip
    batch = maker.batch(0, mined)
    assert batch.background[20:40].all()
    # Without mistakes, they are speech, and nothing else changes.
    kinds = KeywordExampleMaker(training_set, BASE_SHAPE, mix, seed=1)._kinds(mined)
    assert kinds.count("speech") == 20
    assert kinds.count("hard_negative") == 10


def test_keywords_are_also_spoken_where_the_mistakes_were_made(training_set: TrainingSet) -> None:
    """Otherwise the network could learn to detect nothing in such a place."""
    mix = KeywordMix(
        size=10, keyword=1.0, part=0, confusable=0, hard_negative=0, mistake=0, noise=0,
        speech_before=0, speech_after=0, add_noise=1.0, snr_db=(-60.0, -60.0), noise_of_mistakes=1.0,
    )  # fmt: skip
    both = with_mistake(training_set)
    (mistake,) = both.mistakes
    batch = KeywordExampleMaker(both, BASE_SHAPE, mix, seed=1).batch(0)
    sound = np.abs(np.fft.rfft(both.corpus.samples(mistake), 1 << 17))
    for pcm in batch.pcm.numpy():
        other = np.abs(np.fft.rfft(pcm, 1 << 17))
        assert np.corrcoef(sound, other)[0, 1] > 0.3
    assert batch.target.any(1).all()


@pytest.mark.slow
def test_the_network_learns_from_its_mistakes(
    recordings: Path, speech: Path, base: Path, tmp_path: Path
) -> None:
    for person in range(70, 80):
        samples = np.pad(say(COMMUTER, person, person), RATE)
        clip(tmp_path, f"{person}", "wrong", samples, start_s=11.3, end_s=12.2)
    training_set = collect(
        {"computer": sorted(recordings.glob("*.wav"))},
        [SourceFile(p, "speech", "training", "", p.parts[-3]) for p in sorted(speech.rglob("*.flac"))],
        tmp_path / "scratch",
        mistakes=read_mistakes([tmp_path], ["computer"]),
        seed=1,
    )
    recipe = replace(FINE_TUNE_RECIPE, steps=160, rounds=0)
    recipe = replace(recipe, mix=replace(recipe.mix, mistake=0.3))
    before, after = (
        fine_tune(load_network(base), examples, recipe)
        for examples in (replace(training_set, mistakes=()), training_set)
    )

    def highest_score(network: Network, word: tuple[tuple[float, float], ...]) -> float:
        others = [np.pad(say(word, person, person), RATE // 2) for person in range(50, 62)]
        return float(np.median([score(network, samples)[:, FIRST_KEYWORD].max() for samples in others]))

    assert highest_score(before, COMMUTER) > 0.3
    assert highest_score(after, COMMUTER) < 0.5 * highest_score(before, COMMUTER)
    assert highest_score(after, COMPUTER) > 0.8 * highest_score(before, COMPUTER)


@pytest.mark.slow
def test_missed_words_are_recordings_of_the_model(
    base: Path, recordings: Path, speech: Path, tmp_path: Path
) -> None:
    for person in (80, 81):
        samples = np.pad(say(COMPUTER, person, person), RATE)
        clip(tmp_path, f"missed-{person}", "missed", samples, start_s=11.3, end_s=12.2)
    # One that is among the recordings already, and one that cannot be used.
    known = write_missed_words(read_mistakes([tmp_path], ["computer"]), "computer", tmp_path / "known")[0]
    both = tmp_path / "recordings"
    shutil.copytree(recordings, both)
    shutil.copy(known, both)
    clip(tmp_path, "missed-82", "missed", np.zeros(3 * RATE))
    clip(tmp_path, "wrong", "wrong")
    request = KeywordRequest(
        {"computer": both}, tmp_path / "computer.onnx", (speech,), base=base, fa_per_hour=120, folds=0,
        mistakes=(tmp_path,), recipe=replace(FINE_TUNE_RECIPE, steps=4, rounds=1),
    )  # fmt: skip
    create_model(request)
    document = json.loads(request.out.with_suffix(".metrics.json").read_text())
    assert document["recordings"] == 24 + 2
    assert [one["why"] for one in document["left_out"]] == ["it is silent: check the microphone"]


def test_the_words_that_were_missed_are_cut_out_with_a_margin(tmp_path: Path) -> None:
    clip(tmp_path / "clips", "a", "missed", start_s=10.1)
    clip(tmp_path / "clips", "b", "wrong")
    clip(tmp_path / "clips", "c", "missed", keyword="jarvis")
    clip(tmp_path / "clips", "d", "missed")
    mistakes = read_mistakes([tmp_path / "clips"], ["computer", "other"])
    paths = write_missed_words(mistakes, "computer", tmp_path / "words")
    assert [soundfile.info(path).frames / RATE for path in paths] == pytest.approx([2.4, 0.5 + 0.8])
    assert write_missed_words(mistakes, "other", tmp_path / "none") == []


def test_a_missed_word_in_floating_point_keeps_its_samples(tmp_path: Path) -> None:
    clip(tmp_path / "clips", "a", "missed")
    samples = np.random.default_rng(2).normal(0, 0.5, 3 * RATE)
    soundfile.write(tmp_path / "clips" / "a.wav", samples, RATE, subtype="FLOAT")
    (path,) = write_missed_words(
        read_mistakes([tmp_path / "clips"], ["computer"]), "computer", tmp_path / "w"
    )
    cut, _ = soundfile.read(path)
    assert soundfile.info(path).subtype == "PCM_16"
    np.testing.assert_allclose(cut, samples[int(1.1 * RATE) : int(2.4 * RATE)].clip(-1, 1), atol=1e-4)


def test_clips_of_other_keywords_are_ignored_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name, keyword in (("a", "computer"), ("b", "jarvis"), ("c", "alexa"), ("d", "alexa")):
        clip(tmp_path, name, "wrong", keyword=keyword)
    assert [one.path.name for one in read_mistakes([tmp_path], ["computer"])] == ["a.wav"]
    assert "ignored, since they are of other keywords ('alexa', 'jarvis'): 3" in caplog.text
    with pytest.raises(RecordingsError, match=r"other keywords \('alexa', 'computer', 'jarvis'\)"):
        read_mistakes([tmp_path], ["banana"])


def test_a_folder_without_mistakes_is_reported(tmp_path: Path) -> None:
    clip(tmp_path / "clips", "a", "right")
    with pytest.raises(RecordingsError, match="no clips that are marked as wrong or missed"):
        read_mistakes([tmp_path / "clips"], ["computer"])


def test_false_alarms_require_other_speech(recordings: Path, tmp_path: Path) -> None:
    clip(tmp_path / "clips", "a", "wrong")
    request = KeywordRequest({"computer": recordings}, tmp_path / "a.onnx", mistakes=(tmp_path / "clips",))
    with pytest.raises(RecordingsError, match="--mistakes requires --negatives"):
        create_model(request)
