"""From made-up clips to a served model, in small."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from earmark_spotter import Detection, Spotter, SpotterModel, classify
from earmark_training import export as export_module
from earmark_training.__main__ import main
from earmark_training.calibrate import detect, false_alarms
from earmark_training.corpus import Corpus, prepare
from earmark_training.errors import ExportError, RecipeError
from earmark_training.examples import OUTPUT_FRAMES, ExampleMaker, Mix
from earmark_training.export import export
from earmark_training.peaks import Utterance
from earmark_training.streams import Spoken, Stream, judge, make_streams
from earmark_training.train import CHECKPOINT, Recipe, load_trained, train
from earmark_training.transcripts import Placed

if TYPE_CHECKING:
    from collections.abc import Iterable

RECIPE = Recipe(
    keywords=("yes", "no"),
    channels=24,
    kernel=5,
    dilations=(1, 2, 4),
    epochs=60,
    label_smoothing=0.0,
    warmup_steps=10,
    ema_decay=0.9,
    mix=Mix(keywords=20, unknown_words=6, speech=4, noise=4, snr_db=(5, 30), gain_db=(-10, 5)),
)


def quiet(iterable: Iterable[Any], **_: object) -> Iterable[Any]:
    return iterable


@pytest.fixture(scope="module")
def corpus(clips_dir: Path, speech_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(clips_dir, [speech_dir], tmp_path_factory.mktemp("corpus"), progress=quiet)


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(corpus, RECIPE, out, progress=quiet)
    return out


@pytest.fixture(scope="module")
def model(run: Path, corpus: Corpus) -> SpotterModel:
    out = run / "model.onnx"
    return export(load_trained(run), corpus, out, name="made-up", version="1", fa_per_hour=10)


@pytest.fixture
def maker(corpus: Corpus) -> ExampleMaker:
    return ExampleMaker(corpus, RECIPE.shape, RECIPE.labels, RECIPE.mix, seed=1)


def test_a_batch_is_the_same_whenever_it_is_made(maker: ExampleMaker):
    first, again, other = maker.batch(3), maker.batch(3), maker.batch(4)
    assert torch.equal(first.pcm, again.pcm)
    assert not torch.equal(first.pcm, other.pcm)


def test_a_batch_holds_what_the_mix_says(maker: ExampleMaker):
    batch = maker.batch(0)
    assert batch.pcm.shape == (RECIPE.mix.size, maker.samples)
    assert batch.pcm.abs().max() <= 1
    unknown, yes, no = range(1, 4)
    words, unknown_words = batch.target[:20], batch.target[20:26]
    assert set(words.tolist()) == {yes, no}
    assert set(unknown_words.tolist()) == {unknown}
    assert batch.allowed[-4:].tolist() == [[True, False, False, False]] * 4  # noise is silence, all of it
    assert batch.answer[:26].sum(1).min() >= 10  # every word has frames to be answered in
    assert not batch.answer[26:30].any()  # read speech has no answer, only a background
    assert batch.background[26:30].all()


def test_read_speech_that_holds_a_keyword_may_be_taken_for_it(maker: ExampleMaker):
    allowed = torch.cat([maker.batch(i).allowed[26:30] for i in range(10)])
    assert allowed[:, :2].all()  # silence and unknown always
    assert allowed[:, 2].any()  # "well yes indeed"
    assert not allowed[:, 2].all()
    assert not allowed[:, 3].any()  # nobody says no


def test_a_network_takes_as_many_frames_as_an_example_has(maker: ExampleMaker):
    from earmark_training.network import Network

    network = Network(RECIPE.shape)
    assert network.logits(network.log_mel(maker.batch(0).pcm)).shape[1] == OUTPUT_FRAMES


def test_training_without_clips_of_a_keyword_is_refused(corpus: Corpus, tmp_path: Path):
    with pytest.raises(RecipeError, match="no training clips of: stop"):
        train(corpus, replace(RECIPE, keywords=("yes", "stop")), tmp_path, progress=quiet)


def test_the_run_leaves_its_log_metrics_and_curves(run: Path):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["epochs"] == len(metrics["history"]) == RECIPE.epochs
    assert metrics["validation_accuracy"] > 0.9
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "epoch 60 loss" in (run / "train.log").read_text()


def test_a_killed_run_goes_on_to_the_same_weights(corpus: Corpus, tmp_path: Path):
    recipe = replace(RECIPE, epochs=4)
    unbroken = train(corpus, recipe, tmp_path / "unbroken", progress=quiet)

    class KilledError(Exception):
        pass

    def killed_in_the_third(iterable: Iterable[Any], *, desc: str, **_: object) -> Iterable[Any]:
        for i, item in enumerate(iterable):
            if desc.startswith("epoch 3/") and i == 1:
                raise KilledError
            yield item

    with pytest.raises(KilledError):
        train(corpus, recipe, tmp_path / "broken", progress=killed_in_the_third)
    resumed = train(corpus, recipe, tmp_path / "broken", progress=quiet)
    for name, value in unbroken.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-6, rtol=1e-5, msg=name)
    with pytest.raises(RecipeError, match="another recipe"):
        train(corpus, replace(recipe, seed=9), tmp_path / "broken", progress=quiet)


def test_the_exported_file_is_what_the_spotter_loads(run: Path, model: SpotterModel):
    assert SpotterModel.load(run / "model.onnx").sha256 == model.sha256
    meta = model.metadata
    assert meta.labels == ("_silence_", "_unknown_", "yes", "no")
    assert meta.receptive_field_samples == RECIPE.shape.receptive_field_samples
    assert {m.name for m in meta.metrics} >= {"clip_accuracy", "stream_found_20db", "false_alarms_per_hour"}
    assert all(300 <= info.duration_ms <= 500 for info in meta.keywords.values())


def test_the_exported_file_names_nothing_of_the_machine(run: Path):
    content = (run / "model.onnx").read_bytes()
    for name in (str(Path(export_module.__file__).parent), "site-packages", "/home/"):
        assert name.encode() not in content


def test_the_exported_model_knows_its_words(model: SpotterModel, corpus: Corpus):
    labels = model.metadata.labels
    clips = [c for c in corpus.select("clip", "validation") if c.text != "cat"]
    right = [labels[classify(model, corpus.samples(c)).argmax()] == c.text for c in clips]
    assert np.mean(right) >= 0.9
    streams = make_streams(corpus, clips, snr_db=None, seed=1)
    heard = []
    for stream in streams:
        spotter = Spotter(model)
        heard.append(spotter.feed((stream.samples * 32767).astype("<i2").tobytes()) + spotter.flush())
    assert judge(streams, heard, ("yes", "no")).found_fraction >= 0.8


def test_an_export_that_streams_otherwise_is_refused(
    run: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    correct = export_module._to_onnx

    def of_other_weights(trained: Any) -> Any:
        with torch.no_grad():
            trained.log_mel.mel *= 1.1  # nothing in silence, something in speech
        graph = correct(trained)
        with torch.no_grad():
            trained.log_mel.mel /= 1.1
        return graph

    monkeypatch.setattr(export_module, "_to_onnx", of_other_weights)
    out = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="differ from torch's"):
        export(load_trained(run), corpus, out, name="made-up", version="1", fa_per_hour=10)
    assert not out.exists()


def test_streams_have_every_clip_once_and_noise_as_stated(corpus: Corpus):
    clips = corpus.select("clip", "validation")
    (clean,) = make_streams(corpus, clips, snr_db=None, seed=5)
    (noisy,) = make_streams(corpus, clips, snr_db=10, seed=5)
    assert sorted(w.text for w in clean.words) == sorted(c.text for c in clips)
    assert clean.words == noisy.words
    word = np.median([np.square(clean.samples[w.start : w.end]).mean() for w in clean.words])
    noise = np.square(noisy.samples - clean.samples).mean()
    assert 10 * np.log10(word / noise) == pytest.approx(10, abs=0.5)


def test_judging_counts_found_repeated_and_wrong():
    def heard(keyword: str, start: int) -> Detection:
        return Detection(keyword, 0.9, start, start + 6_400, f"{keyword}-{start}")

    stream = Stream(
        np.zeros(80_000, np.float32), (Spoken("yes", 16_000, 22_400), Spoken("no", 40_000, 46_400))
    )
    detections = [heard("yes", 15_000), heard("yes", 17_000), heard("yes", 40_000), heard("no", 70_000)]
    verdict = judge([stream], [detections], ("yes", "no"))
    assert (verdict.spoken.total(), verdict.found.total()) == (2, 1)
    assert (verdict.repeated["yes"], verdict.wrong["yes"], verdict.wrong["no"]) == (1, 1, 1)
    assert verdict.found_fraction == 0.5


def test_a_keyword_that_the_transcript_has_is_no_false_alarm(model: SpotterModel):
    scores = np.zeros((200, 4), np.float32)
    scores[50:55, 2] = scores[150:155, 3] = 0.999  # yes, then no
    assert [d.keyword for d in detect(model.metadata, scores)] == ["yes", "no"]

    def alarms(text: str, *places: tuple[float, float], anywhere: bool = False) -> dict[str, int]:
        words = tuple(
            Placed(w, int(a * 16_000), int(b * 16_000))
            for w, (a, b) in zip(text.split(), places, strict=True)
        )
        utterance = Utterance(text, words, 64_000, scores)
        return dict(false_alarms(model.metadata, [utterance], anywhere=anywhere))

    assert alarms("oh yes", (0.1, 0.4), (0.6, 1.0)) == {"no": 1}
    assert alarms("yes i know", (0.5, 1.0), (1.0, 2.5), (2.6, 3.0)) == {}
    # Said, but elsewhere.
    assert alarms("know yes", (0.5, 1.0), (2.6, 3.0)) == {"yes": 1, "no": 1}
    assert alarms("know yes", (0.5, 1.0), (2.6, 3.0), anywhere=True) == {}


def test_the_command_evaluates_a_model(
    run: Path, model: SpotterModel, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["evaluate", str(run / "model.onnx"), "--corpus", str(corpus.folder), "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "Keywords in streams" in printed
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["sha256"] == model.sha256
    assert np.sum(document["clips"]["own"]["confusion"]) == 18 + 4  # the clips, and noise in proportion
    assert document["figures"]["clip_accuracy"] >= 0.9
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3  # curves, curves by keyword, confusion
    assert not re.search("https?:|src=|@import", page)  # it stands alone


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--corpus", "{tmp}"], "run `earmark-train prepare` first"),
        (["prepare", "--clips", "{tmp}", "--corpus", "{tmp}/c"], "holds no clips laid out"),
        (["evaluate", "{tmp}/none.onnx"], "none.onnx cannot be read"),
        (["export", "{tmp}/none"], "No such file"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([a.format(tmp=tmp_path) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]):
    for arguments in ([], ["prepare"], ["train", "--epochs", "many"]):
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert exit_info.value.code == 2


def test_the_checkpoint_is_found_by_file_or_folder(run: Path):
    assert load_trained(run).recipe == load_trained(run / CHECKPOINT).recipe == RECIPE
