"""From made-up clips to a served model, in small."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from earmark_spotter import Detection, Spotter, SpotterModel, classify
from earmark_training.__main__ import main
from earmark_training.data import features
from earmark_training.data.corpus import Corpus, prepare
from earmark_training.data.examples import OUTPUT_FRAMES, ExampleMaker, Mix
from earmark_training.data.features import FeatureBank, feature_bank
from earmark_training.data.front_end import LOG_FLOOR
from earmark_training.data.transcripts import Placed
from earmark_training.errors import ExportError, RecipeError
from earmark_training.evaluation import export as export_module
from earmark_training.evaluation.export import export_model
from earmark_training.evaluation.operating_point import detect, false_alarms
from earmark_training.evaluation.peaks import Utterance
from earmark_training.evaluation.streams import Spoken, Stream, judge, make_streams
from earmark_training.model.network import Network
from earmark_training.model.onnx_file import load_network
from earmark_training.model.recipe import Recipe
from earmark_training.model.schedule import rate_at
from earmark_training.model.train import CHECKPOINT, Learner, code_commit, load_trained, train

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RECIPE = Recipe(
    keywords=("yes", "no"),
    channels=24,
    kernels=(5, 5, 3),
    strides=(1, 2, 1),
    late_blocks=1,
    cycles=(5, 3),
    steps_per_epoch=30,
    learning_rate=1e-2,
    warmup_steps=10,
    ema_decay=0.95,
    mix=Mix(
        streams=8,
        speech=0.1,
        noise=0.2,
        keyword=0.5,
        unknown_word=0.4,
        joined=0,
        warp=0,
        tempo=(0.95, 1.05),
        snr_db=(5, 30),
        gain_db=(-10, 5),
    ),
)


# Feature banks with fewer variants than a real training's: enough for two words, and computed in a second.
SMALL_BANKS = {
    "_VARIANTS": ({"clip": 3, "speech": 2, "noise": 6}, {"clip": 3, "speech": 3, "noise": 6}),
    "_SYNTHETIC_PIECES": 12,
}


@pytest.fixture(scope="module", autouse=True)
def small_banks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL_BANKS.items():
            patch.setattr(features, name, value)
        yield


def quiet(iterable: Iterable[Any], **_: object) -> Iterable[Any]:
    return iterable


@pytest.fixture(scope="module")
def corpus(clips_dir: Path, speech_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(clips_dir, [speech_dir], tmp_path_factory.mktemp("corpus"), progress=quiet)


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(corpus, RECIPE, out)
    return out


@pytest.fixture(scope="module")
def model(run: Path, corpus: Corpus) -> SpotterModel:
    out = run / "model.onnx"
    return export_model(load_trained(run), corpus, out, name="made-up", version="1", fa_per_hour=10)


@pytest.fixture(scope="module")
def bank(corpus: Corpus) -> FeatureBank:
    return feature_bank(corpus, RECIPE.shape.front_end)


@pytest.fixture
def maker(bank: FeatureBank) -> ExampleMaker:
    return of_only(bank)


def of_only(bank: FeatureBank, **mix: Any) -> ExampleMaker:
    shape = RECIPE.shape
    return ExampleMaker(bank, shape.front_end, shape.score_window, RECIPE.labels, replace(RECIPE.mix, **mix))


def test_the_bank_has_every_training_recording_plain_and_varied(bank: FeatureBank, corpus: Corpus):
    clips = corpus.select("clip", "training")
    plain = [i for i in bank.items if i.kind == "clip" and i.plain]
    assert [i.text for i in plain] == [c.text for c in clips]
    assert len([i for i in bank.items if i.kind == "clip"]) > 2 * len(clips)
    # A plain item's features are the network's own, of the recording after silence.
    shape, clip = RECIPE.shape, corpus.samples(clips[3])
    samples = np.pad(clip, (shape.window_samples - shape.hop_samples, 0))
    expected = Network(shape).log_mel(torch.from_numpy(samples[None]))[0].numpy()
    found = np.log(bank.power(plain[3]) + LOG_FLOOR)
    np.testing.assert_allclose(found, expected, atol=0.02)
    (word, start, end), located = plain[3].words[0], clips[3].word
    assert located is not None
    assert (word, start) == (clips[3].text, located[0] // shape.hop_samples)
    assert abs(end * shape.hop_samples - located[1]) < shape.hop_samples


def test_a_bank_is_computed_once(corpus: Corpus, bank: FeatureBank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("earmark_training.data.features._compute", None)
    assert feature_bank(corpus, RECIPE.shape.front_end).folder == bank.folder


def test_the_next_cycle_has_other_variants_of_the_same_recordings(corpus: Corpus, bank: FeatureBank):
    following = feature_bank(corpus, RECIPE.shape.front_end, 1)
    clips, others = ([i for i in b.items if i.kind == "clip"] for b in (bank, following))
    assert [i.text for i in clips] == [i.text for i in others]
    for one, other in zip(clips[:8], others[:8], strict=True):
        powers = bank.power(one), following.power(other)
        assert one.plain == other.plain == np.array_equal(*powers)


def test_the_learning_rate_rises_and_falls_to_nothing():
    rates = [rate_at(step, warmup_steps=10, steps=100) for step in range(100)]
    assert rates.index(max(rates)) in range(8, 12)
    assert max(rates) > 0.95
    assert rates[99] < 0.01


def test_every_epoch_is_in_its_cycle():
    first, last = (0, range(5)), (1, range(5, 8))
    assert [RECIPE.cycle(epoch) for epoch in range(RECIPE.epochs)] == [first] * 5 + [last] * 3


def test_a_network_that_has_grown_says_what_it_said_before():
    learner = Learner(RECIPE, RECIPE.shape_in(0))
    grown = learner.grown(RECIPE, RECIPE.shape)
    assert len(grown.network.blocks) == len(learner.network.blocks) + 1
    extra = RECIPE.shape.mel_frames - RECIPE.shape_in(0).mel_frames
    mel = torch.randn(2, RECIPE.shape.mel_frames + 40, RECIPE.shape.mels)
    with torch.no_grad():
        before = learner.network.eval().logits(mel[:, extra:])
        torch.testing.assert_close(grown.network.eval().logits(mel), before)


def test_a_corpus_that_replaces_another_gets_its_own_bank(
    clips_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("earmark_training.data.features._VARIANTS", ({"clip": 1, "noise": 1},))
    monkeypatch.setattr("earmark_training.data.features._SYNTHETIC_PIECES", 1)
    fewer = shutil.copytree(clips_dir, tmp_path / "clips")
    shutil.rmtree(fewer / "yes")
    for folder in (clips_dir, fewer):
        found = feature_bank(prepare(folder, [], tmp_path / "corpus", progress=quiet), RECIPE.shape.front_end)
        words = {i.text for i in found.items if i.kind == "clip"}
        assert words == {path.name for path in folder.glob("[a-z]*") if path.is_dir()}


def test_a_batch_is_the_same_whenever_it_is_made(maker: ExampleMaker):
    first, again, other = maker.batch((1, 3)), maker.batch((1, 3)), maker.batch((1, 4))
    assert torch.equal(first.mel, again.mel)
    assert not torch.equal(first.mel, other.mel)


def test_words_are_answered_after_their_end_and_allowed_about_it(bank: FeatureBank):
    unknown, yes, no = range(1, 4)
    maker = of_only(bank, noise=0, speech=0, keyword=0.6, unknown_word=0.4, add_noise=0)
    seen = set()
    for i in range(10):
        batch = maker.batch((i,))
        assert batch.allowed[..., :2].all()  # silence and unknown always
        for example, first, target in batch.answers.tolist():
            seen.add(target)
            frames = batch.allowed[example, first : first + maker.answer_frames]
            assert frames[:, target].all()
            # The word is over: its last loud mel frame is one that the first answering frame has seen.
            stride = RECIPE.shape.frame_samples // RECIPE.shape.hop_samples
            last = RECIPE.shape.mel_frames - 1 + first * stride
            level = batch.mel[example].logsumexp(-1)
            assert level[max(0, last - 40) : last + 1].max() > level[last + 1 : last + 6].max() + 1
        assert not batch.allowed[..., 2:].all(-1).all()  # and not everywhere
    assert seen == {unknown, yes, no}


def test_noise_is_silence_and_nothing_else(bank: FeatureBank):
    batch = of_only(bank, noise=1).batch((0,))
    assert batch.allowed[..., 0].all()
    assert not batch.allowed[..., 1:].any()
    assert not len(batch.answers)


def test_read_speech_may_be_taken_for_the_keywords_in_it_where_they_are(bank: FeatureBank):
    maker = of_only(bank, noise=0, speech=1, add_noise=0)
    batches = [maker.batch((i,)) for i in range(10)]
    assert not any(len(b.answers) for b in batches)  # nobody knows the exact place
    allowed = torch.cat([b.allowed for b in batches])
    assert allowed[..., :2].all()
    assert 0.1 < allowed[..., 2].float().mean() < 0.9  # "well yes indeed", not "a long day"
    assert not allowed[..., 3].any()  # nobody says no


def test_a_network_takes_as_many_frames_as_an_example_has(maker: ExampleMaker):
    network = Network(RECIPE.shape)
    assert network.logits(maker.batch((0,)).mel).shape[1] == OUTPUT_FRAMES


def test_training_without_clips_of_a_keyword_is_refused(corpus: Corpus, tmp_path: Path):
    with pytest.raises(RecipeError, match="no training clips of: stop"):
        train(corpus, replace(RECIPE, keywords=("yes", "stop")), tmp_path)


def test_the_run_leaves_its_log_metrics_and_curves(run: Path):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["epochs"] == len(metrics["history"]) == RECIPE.epochs
    assert metrics["validation_accuracy"] > 0.7  # an unknown word as short as a sweep may pass for silence
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "epoch 8 loss" in (run / "train.log").read_text()


def test_a_killed_run_goes_on_to_the_same_weights(corpus: Corpus, run: Path, tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from test_training_run import *; "
        "vars(features).update(SMALL_BANKS); "
        "train(Corpus(Path(sys.argv[1])), RECIPE, Path(sys.argv[2])) if __name__ == '__main__' else None"
    )
    script = tmp_path / "training.py"
    script.write_text(program.replace("; ", "\n"))
    log = tmp_path / "broken" / "train.log"
    paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    with subprocess.Popen(
        [sys.executable, str(script), str(corpus.folder), str(tmp_path / "broken")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
    ) as process:
        while not (log.is_file() and "epoch 2 loss" in log.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        # Its own processes have the same standard error, which ends with the last of them.
        process.communicate(timeout=60)
    assert f"epoch {RECIPE.epochs} loss" not in log.read_text()
    train(corpus, RECIPE, tmp_path / "broken")
    unbroken, resumed = load_trained(run).network, load_trained(tmp_path / "broken").network
    for name, value in unbroken.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-6, rtol=1e-5, msg=name)
    with pytest.raises(RecipeError, match="another recipe"):
        train(corpus, replace(RECIPE, seed=9), tmp_path / "broken")


def test_the_exported_file_is_what_the_spotter_loads(run: Path, model: SpotterModel):
    assert SpotterModel.load(run / "model.onnx").sha256 == model.sha256
    meta = model.metadata
    assert meta.labels == ("_silence_", "_unknown_", "yes", "no")
    assert meta.receptive_field_samples == RECIPE.shape.receptive_field_samples
    assert {m.name for m in meta.metrics} >= {"clip_accuracy", "stream_found_20db", "false_alarms_per_hour"}
    assert all(300 <= info.duration_ms <= 500 for info in meta.keywords.values())


def test_the_exported_file_can_be_trained_further(run: Path, model: SpotterModel):
    trained, rebuilt = load_trained(run).network, load_network(run / "model.onnx")
    pcm = torch.randn(1, 20 * RECIPE.shape.frame_samples) * 0.1
    with torch.no_grad():
        (expected, _), (found, _) = (n(pcm, n.silent_state()) for n in (trained, rebuilt))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert all(p.requires_grad for p in rebuilt.parameters())


def test_a_file_that_is_no_checkpoint_or_an_older_one_cannot_be_exported(run: Path, tmp_path: Path):
    state = torch.load(run / CHECKPOINT, weights_only=True)
    torch.save(state | {"recipe": state["recipe"] | {"epochs": 8}}, tmp_path / "older.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").touch()
    for name in ("older.pt", "text.pt", "empty.pt"):
        with pytest.raises(RecipeError, match=f"{name} is no checkpoint"):
            load_trained(tmp_path / name)


def test_a_file_without_a_network_cannot_be_trained_further(tmp_path: Path, tiny_model_path: Path):
    (tmp_path / "text.onnx").write_text("no model")
    for path in (tmp_path / "text.onnx", tiny_model_path):
        with pytest.raises(ExportError, match="holds no network that can be trained further"):
            load_network(path)


@pytest.mark.usefixtures("model")
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
    correct = export_module.to_onnx

    def of_other_weights(trained: Any) -> Any:
        with torch.no_grad():
            trained.log_mel.mel *= 1.1  # nothing in silence, something in speech
        graph = correct(trained)
        with torch.no_grad():
            trained.log_mel.mel /= 1.1
        return graph

    monkeypatch.setattr(export_module, "to_onnx", of_other_weights)
    out = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="differ from torch's"):
        export_model(load_trained(run), corpus, out, name="made-up", version="1", fa_per_hour=10)
    assert not out.exists()


def test_streams_have_every_clip_once_and_noise_as_stated(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    clips, samples = corpus.select("clip", "validation"), Corpus.samples
    monkeypatch.setattr(Corpus, "samples", lambda self, c: samples(self, c) * (0.1 if c == clips[0] else 1))
    (clean,) = make_streams(corpus, clips, snr_db=None, seed=5)
    (noisy,) = make_streams(corpus, clips, snr_db=10, seed=5)
    assert sorted(w.text for w in clean.words) == sorted(c.text for c in clips)
    assert clean.words == noisy.words
    # Nothing but the noise is in a pause, and over it each word is as loud as the others.
    noise = np.square(noisy.samples[clean.samples == 0]).mean()
    for word in noisy.words:
        heard = np.square(noisy.samples[word.start : word.end]).mean()
        assert 10 * np.log10(heard / noise - 1) == pytest.approx(10, abs=1.5)


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
    second = 16_000 // model.metadata.frame_samples
    scores = np.zeros((4 * second, 4), np.float32)
    scores[second : second + 3, 2] = scores[3 * second : 3 * second + 3, 3] = 0.999  # yes, then no
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
    assert document["figures"]["clip_accuracy"] > 0.7
    assert document["figures"]["false_alarms_per_hour_10db"] == document["speech"]["noisy"]["per_hour"]
    assert "with noise at 10 dB" in printed
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


def test_outside_a_checkout_the_commit_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")  # no git there
    assert code_commit() == "unknown"
    monkeypatch.setenv("EARMARK_COMMIT", "0123456789ab")
    assert code_commit() == "0123456789ab"


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]):
    for arguments in ([], ["prepare"], ["train", "--epochs", "many"]):
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert exit_info.value.code == 2


def test_the_checkpoint_is_found_by_file_or_folder(run: Path):
    assert load_trained(run).recipe == load_trained(run / CHECKPOINT).recipe == RECIPE
