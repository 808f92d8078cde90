"""The conditions of the measurement, and what is measured in them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_spotter import SpotterModel
from earmark_training.data.corpus import Corpus, prepare
from earmark_training.evaluation.conditions import (
    CALIBRATED,
    CONDITIONS,
    Condition,
    Scene,
    changed_streams,
    conditions_for,
)
from earmark_training.evaluation.intervals import poisson_interval, wilson_interval
from earmark_training.evaluation.robustness import condition_metrics, measure_conditions, words_in_a_row
from earmark_training.evaluation.streams import make_streams

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000


@pytest.fixture(scope="module")
def corpus(clips_dir: Path, speech_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The tiny corpus, with recordings of noise and of music that have folders of their own."""
    rng = np.random.default_rng(0)
    folders = {}
    for kind in ("noise", "music"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        for i in range(12):
            soundfile.write(folders[kind] / f"{i}-{kind}-A.wav", rng.standard_normal(RATE) * 0.1, RATE)
    return prepare(
        clips_dir,
        [speech_dir],
        tmp_path_factory.mktemp("corpus"),
        noise=[folders["noise"]],
        music=[folders["music"]],
    )


@pytest.fixture(scope="module")
def scene(corpus: Corpus) -> Scene:
    return Scene(corpus)


def condition(name: str) -> Condition:
    return next(c for c in CONDITIONS if c.name == name)


@pytest.mark.parametrize("name", ["noise", "babble"])
@pytest.mark.parametrize("snr_db", [20.0, 10.0, 5.0])
def test_the_ratio_is_the_one_named(scene: Scene, name: str, snr_db: float):
    samples = (0.05 * np.sin(np.arange(4 * RATE) / 5)).astype(np.float32)
    power = float(np.square(samples).mean())
    changed = condition(f"{name}, {snr_db:g} dB").change(scene, np.random.default_rng(0), samples, power)
    added = float(np.square(changed - samples).mean())
    assert 10 * np.log10(power / added) == pytest.approx(snr_db, abs=1.0)


@pytest.mark.parametrize("dbfs", [-50.0, -10.0])
def test_the_level_is_the_one_named(scene: Scene, dbfs: float):
    samples = (0.05 * np.sin(np.arange(RATE) / 5)).astype(np.float32)
    name = "quiet" if dbfs < -20 else "loud"
    change = condition(f"{name}, {dbfs:g} dBFS").change
    changed = change(scene, np.random.default_rng(0), samples, float(np.square(samples).mean()))
    assert 10 * np.log10(np.square(changed).mean()) == pytest.approx(dbfs, abs=0.2)
    assert np.array_equal(changed * 32768, np.rint(changed * 32768))


def test_a_telephone_passes_nothing_above_its_band(scene: Scene):
    samples = (0.1 * np.random.default_rng(0).standard_normal(4 * RATE)).astype(np.float32)
    changed = condition("telephone").change(scene, np.random.default_rng(0), samples, 0.01)
    assert len(changed) == len(samples)
    spectrum = np.square(np.abs(np.fft.rfft(changed)))
    hz = np.fft.rfftfreq(len(changed), 1 / RATE)
    assert spectrum[hz > 4_100].mean() < 1e-3 * spectrum[(hz > 500) & (hz < 3_000)].mean()


def test_noises_are_recordings_that_training_does_not_have(corpus: Corpus, scene: Scene):
    assert {n.split for n in (*scene.noises, *scene.music)} == {"validation"}
    trained = {r.text for r in corpus.recordings if r.split == "training"}
    assert trained.isdisjoint(n.text for n in (*scene.noises, *scene.music))


def test_words_and_pauses_are_the_same_in_every_condition(corpus: Corpus, scene: Scene):
    clips = corpus.select("clip", "validation")
    streams = [list(changed_streams(scene, clips, c, 7)) for c in CONDITIONS if c.words]
    assert all([s.words for s in other] == [s.words for s in streams[0]] for other in streams)
    np.testing.assert_array_equal(
        streams[0][0].samples, make_streams(corpus, clips, snr_db=None, seed=7)[0].samples
    )


def test_words_in_a_row_are_where_they_are_said_to_be(corpus: Corpus):
    clips = corpus.select("clip", "validation")
    for stream in words_in_a_row(corpus, clips, 7):
        for word, after in zip(stream.words, stream.words[1:], strict=False):
            assert 0.09 * RATE <= after.start - word.end <= 0.26 * RATE
            inside = stream.samples[word.start : word.end]
            assert np.sqrt(np.square(inside).mean()) == pytest.approx(0.05, rel=0.2)


def test_a_model_is_measured_in_every_condition(corpus: Corpus, tiny_model_path: Path):
    model = SpotterModel.load(tiny_model_path)
    measure = functools.partial(
        measure_conditions, model, corpus, corpus.select("clip", "validation"), seed=7
    )
    document = measure(speech=corpus.select("speech", "validation"))
    names = [row["condition"] for row in document["rows"]]
    assert names[: len(CONDITIONS)] == [c.name for c in CONDITIONS]
    assert {"words in a row", "keyword inside a sentence", "music", "noise alone", "alarms"} <= set(names)
    rates = [row["per_hour"] for row in document["rows"] if row["condition"] in CALIBRATED]
    assert len(rates) == len(CALIBRATED)
    mean = document["operating_point"]["mean_false_alarms_per_hour"]
    assert mean == pytest.approx(np.mean(rates), abs=1e-3)
    metrics = {m.name: m.value for m in condition_metrics(document)}
    assert metrics["mean_false_alarms_per_hour"] == mean
    assert "false_alarms_babble_10" in metrics
    for row in document["rows"]:
        if "per_hour" in row:
            low, high = row["per_hour_interval"]
            assert low - 0.01 <= row["per_hour"] <= high + 0.01


def test_a_condition_without_its_sounds_is_left_out(clips_dir: Path, tmp_path: Path):
    corpus = prepare(clips_dir, [], tmp_path)
    names = [c.name for c in conditions_for(corpus)]
    assert "noise, 10 dB" in names
    assert not any(name.startswith("babble") for name in names)


def test_the_intervals_are_the_known_ones():
    assert wilson_interval(90, 100) == (pytest.approx(0.826, abs=1e-3), pytest.approx(0.945, abs=1e-3))
    for count in range(1, 200):
        assert f"{wilson_interval(0, count)[0]:.1%}" == "0.0%"
        assert wilson_interval(count, count)[1] <= 1
    for events, low, high in ((0, 0.0, 3.69), (4, 1.09, 10.24), (50, 37.11, 65.92)):
        assert poisson_interval(events, 1.0) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.03))
    assert poisson_interval(4, 2.0)[1] == pytest.approx(5.12, abs=0.02)
