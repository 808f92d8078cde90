"""The measurement, with a tiny model whose words are tones, on folders of tones."""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark_spotter import Spotter, SpotterModel, score_recording
from earmark_training.__main__ import main
from earmark_training.evaluation import non_speech
from earmark_training.evaluation.cross_validation import cross_validate
from earmark_training.evaluation.evaluate import evaluate, evaluate_streams, listen
from earmark_training.evaluation.non_speech import silent_sounds
from earmark_training.evaluation.slices import pitch_hz, wilson
from earmark_training.evaluation.streams import make_streams
from earmark_training.evaluation.test_material import from_folders
from support import tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

RATE = 16_000
KEYWORDS = tuple(tiny_model.TONES_HZ)


def quiet(iterable: Iterable[Any], **_: object) -> Iterable[Any]:
    return iterable


def write_clip(path: Path, word: str, seed: int) -> None:
    """A second of faint noise with a tone of 0.12 s in it, or another sound for another word."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 1e-4, RATE).astype(np.float32)
    at = 6_000 + 200 * (seed % 10)
    if word in KEYWORDS:
        samples[at : at + 1_920] += tiny_model.tone(word, 0.12)
    elif word != "_silence_":
        samples[at : at + 1_920] += 0.3 * np.random.default_rng(seed).normal(0, 1, 1_920).astype(np.float32)
    soundfile.write(path, samples, RATE)


@pytest.fixture(scope="module", autouse=True)
def short_sounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(non_speech, "SECONDS", 5)
        yield


@pytest.fixture(scope="module")
def model(tiny_model_path: Path) -> SpotterModel:
    return SpotterModel.load(tiny_model_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips with list files: 5 of each word for testing, 2 for validation, 1 for training."""
    folder = tmp_path_factory.mktemp("clips")
    lists: dict[str, list[str]] = {"testing": [], "validation": []}
    for word in (*KEYWORDS, "hiss"):
        for i in range(8):
            name = f"{word}/speaker{i}_nohash_0.wav"
            write_clip(folder / name, word, i)
            if i < 7:
                lists["testing" if i < 5 else "validation"].append(name)
    for split, names in lists.items():
        (folder / f"{split}_list.txt").write_text("\n".join(names))
    return folder


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of one speaker, who says "low" at 5 s, where the transcript has it, and at 25 s."""
    folder = tmp_path_factory.mktemp("speech") / "7" / "1"
    folder.mkdir(parents=True)
    samples = np.random.default_rng(0).normal(0, 3e-3, 30 * RATE).astype(np.float32)
    for at in (5, 25):
        samples[at * RATE : at * RATE + 1_920] += tiny_model.tone("low", 0.12)
    soundfile.write(folder / "7-1-0000.wav", samples, RATE)
    text = "AAAAAAAA LOW " + " ".join(["BBBBBBBBBBBBBBBBBB"] * 2)  # 10 + 5 + 20 + 20 of 55
    (folder / "7-1.trans.txt").write_text(f"7-1-0000 {text}")
    return folder.parent.parent


@pytest.fixture(scope="module")
def document(
    model: SpotterModel, folder: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    material = from_folders(folder, [speech], None, tmp_path_factory.mktemp("corpus"), progress=quiet)
    return evaluate(model, material)[1]


def test_a_decision_comes_when_a_stream_would_hear_it(model: SpotterModel):
    samples = tiny_model.recording([(0.5, "low"), (1.5, "high"), (2.6, "mid")], 4.0)
    scores = score_recording(model, samples)
    step = model.metadata.step_samples
    spotter, expected = Spotter(model), []
    for start in range(0, len(samples), step):
        expected += [(d, start + step) for d in spotter.feed(samples[start : start + step])]
    assert len(expected) == 3
    assert list(listen(model.metadata, scores)) == expected


def test_the_delay_is_counted_from_the_word_s_end(model: SpotterModel):
    """A peak is decided when nothing higher came for the hold time of 100 ms, 5 frames."""
    scores = np.zeros((100, 5), np.float32)
    scores[40, 2] = 0.9
    ((detection, decided),) = listen(model.metadata, scores)
    assert detection.keyword == "low"
    assert decided == (40 + 5 + 1) * model.metadata.frame_samples


def test_a_detection_in_the_last_moment_is_decided_at_the_end(model: SpotterModel):
    scores = np.zeros((42, 5), np.float32)
    scores[40, 2] = 0.9
    assert [at for _, at in listen(model.metadata, scores)] == [42 * model.metadata.frame_samples]


def test_all_of_the_testing_split_is_measured(document: dict[str, Any]):
    assert "20 clips in" in document["data"]["what"]
    assert "split: testing" in document["data"]["what"]
    assert "1 utterances in" in document["data"]["what"]
    own = document["clips"]["own"]
    assert own["clips"] == 20 + 20 // 5  # and noise, in proportion
    assert all(own["accuracy_by_class"][k] == 1.0 for k in KEYWORDS)
    clean = document["streams"]["clean"]
    assert (clean["spoken"], clean["found"], clean["repeated"]) == (15, 15, 0)
    assert list(document["streams"]) == ["clean", "20db", "10db", "5db", "0db"]


def test_noise_that_is_not_there_is_made_and_said(document: dict[str, Any]):
    assert document["data"]["noise"].startswith("synthetic (white, pink, brown)")


def test_the_delay_is_what_a_listener_would_see(
    document: dict[str, Any], model: SpotterModel, folder: Path, tmp_path: Path
):
    corpus = from_folders(folder, [], "testing", tmp_path, progress=quiet).corpus
    step, delays_ms = model.metadata.step_samples, []
    for stream in make_streams(corpus, corpus.select("clip", "validation"), snr_db=None, seed=7):
        spotter = Spotter(model)
        for start in range(0, len(stream.samples), step):
            for d in spotter.feed(stream.samples[start : start + step]):
                middle = (d.start_sample + d.end_sample) // 2
                said = [w for w in stream.words if abs(w.end - middle) < RATE // 3 and w.text == d.keyword]
                delays_ms += [(start + step - word.end) / 16 for word in said]
    delay = document["streams"]["clean"]["delay_ms"]
    assert delay["words"] == len(delays_ms) == 15
    assert delay["median"] == round(np.percentile(delays_ms, 50))
    assert delay["95th"] == round(np.percentile(delays_ms, 95))


def test_false_alarms_are_excused_only_where_the_word_is_said(document: dict[str, Any]):
    speech = document["speech"]
    assert speech["hours"] == pytest.approx(30 / 3600, abs=1e-3)
    assert speech["by_keyword"] == {"low": 1}
    assert speech["alarms"] == 1
    assert speech["alarms_if_excused_anywhere"] == 0
    assert speech["per_hour"] == pytest.approx(120)


def test_nothing_is_cross_validated_on_foreign_folders(document: dict[str, Any]):
    assert "cross_validation" not in document


def test_thresholds_are_tried_on_the_speakers_that_did_not_choose_them(
    model: SpotterModel, folder: Path, speech: Path, tmp_path: Path
):
    """A second reader says the same as the first: each half has one word that its transcript lacks there."""
    other = tmp_path / "speech" / "8" / "1"
    shutil.copytree(speech / "7" / "1", other)
    (other / "7-1-0000.wav").rename(other / "8-1-0000.wav")
    (other / "8-1.trans.txt").write_text((other / "7-1.trans.txt").read_text().replace("7-1-", "8-1-"))
    (other / "7-1.trans.txt").unlink()
    readers = [speech, tmp_path / "speech"]
    corpus = from_folders(folder, readers, "testing", tmp_path / "corpus", progress=quiet).corpus
    figures, details = cross_validate(model, corpus, seed=7, fa_per_hour=1000)
    assert details["alarms"] == 2
    assert details["hours"] == pytest.approx(1 / 60, abs=1e-3)
    assert details["found_clean"] == 1.0
    assert {f.name for f in figures} == {
        f"crossvalidated_{name}" for name in ("found_clean", "found_10db", "false_alarms_per_hour")
    }


def test_another_seed_makes_other_streams(model: SpotterModel, folder: Path, tmp_path: Path):
    corpus = from_folders(folder, [], "validation", tmp_path, progress=quiet).corpus
    clips = corpus.select("clip", "validation")
    assert len(clips) == 8
    first, again, other = (make_streams(corpus, clips, snr_db=10, seed=s)[0] for s in (7, 7, 8))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.words != other.words
    figures = [evaluate_streams(model, corpus, clips, 7)[0] for _ in range(2)]
    assert figures[0] == figures[1]


def test_a_test_archive_is_taken_whole(model: SpotterModel, tmp_path: Path):
    for word in (*KEYWORDS, "_silence_", "_unknown_"):
        for i in range(3):
            write_clip(tmp_path / "archive" / word / f"{i}.wav", word, i)
    material = from_folders(tmp_path / "archive", [], None, tmp_path / "corpus", progress=quiet)
    assert "a test archive: all of them" in material.description
    assert len(material.corpus.select("clip", "validation")) == 15


def test_made_up_sounds_are_the_same_for_a_seed_and_within_full_scale():
    for (name, first), (_, again), (_, other) in zip(*(silent_sounds(s) for s in (1, 1, 2)), strict=True):
        assert np.abs(first).max() <= 1.0, name
        assert first.dtype == np.float32
        assert len(first) == 5 * RATE
        np.testing.assert_array_equal(first, again)
        assert name == "digital silence" or not np.array_equal(first, other)


@pytest.mark.parametrize("hz", [90, 140, 220, 330])
def test_a_voice_s_pitch(hz: float):
    time = np.arange(RATE // 2) / RATE
    voice = sum(np.sin(2 * np.pi * h * hz * time) / h for h in range(1, 15))
    assert pitch_hz(voice) == pytest.approx(hz, rel=0.02)
    assert pitch_hz(np.random.default_rng(0).normal(size=RATE // 2)) is None


def test_an_interval_holds_the_share():
    low, high = wilson(90, 100)
    assert (low, high) == (pytest.approx(0.826, abs=1e-3), pytest.approx(0.945, abs=1e-3))


def test_the_command_measures_folders_and_writes_a_page_that_stands_alone(
    tiny_model_path: Path, folder: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["evaluate", str(tiny_model_path), "--clips", str(folder), "--speech", str(speech)]
    assert main([*arguments, "--split", "testing", "--seed", "3", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for title in ("Clips", "Keywords in streams", "False alarms in read speech", "Where nobody speaks"):
        assert f"\n{title}\n" in printed
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 3  # curves, curves by keyword, confusion
    assert not re.search(r"https?:|src=|@import|<link|url\((?!#)", page)
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["data"]["seed"] == 3
    assert document["sha256"] in page
    card = (tmp_path / "model_card.md").read_text()
    assert all(f"| {keyword} |" in card for keyword in SpotterModel.load(tiny_model_path).metadata.keywords)
    assert document["sha256"] in card


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--clips", "{tmp}/missing"], "missing is no folder"),
        (["--speech", "{tmp}/missing"], "missing is no folder"),
        (["--clips", "{tmp}"], "holds no clips laid out"),
        (["--speech", "{tmp}"], "holds no utterances"),
        (["--clips", "{other}"], "none of the clips says a word that the model knows (low, mid, high)"),
        (["--clips", "{other}", "--split", "validation"], "has no clips for validation"),
        (["--clips", "{damaged}"], "a_nohash_0.wav cannot be read"),
        (["--corpus", "{tmp}/missing"], "run `earmark-train prepare` first"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str],
    sentence: str,
    tiny_model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    for name in ("other", "damaged"):
        write_clip(tmp_path / name / "cat" / "a_nohash_0.wav", "cat", 0)
        (tmp_path / name / "testing_list.txt").write_text("cat/a_nohash_0.wav")
    (tmp_path / "damaged" / "cat" / "a_nohash_0.wav").write_bytes(b"RIFF, but no more")
    (tmp_path / "empty").mkdir()
    places = {"tmp": tmp_path / "empty", "other": tmp_path / "other", "damaged": tmp_path / "damaged"}
    assert main(["evaluate", str(tiny_model_path), *(a.format(**places) for a in arguments)]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_the_curve_falls(document: dict[str, Any]):
    """The tiny model hears every tone: in the end nothing is missed."""
    overall = document["tradeoff"]["overall"]["clean"]
    assert overall[-1][1] == 0.0
    assert all(a[1] >= b[1] and a[0] < b[0] for a, b in pairwise(overall))
    assert document["tradeoff"]["found_at"] == {}  # half a minute of speech says nothing of alarms an hour
