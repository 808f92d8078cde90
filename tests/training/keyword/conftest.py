"""Recordings of a synthetic keyword, and a base model and a fine-tuned one, made once for all tests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.built_once import build_once
from support.synthetic_words import COMPUTER, write_recordings, write_speech

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.keyword.training_set import TrainingSet


@pytest.fixture
def few_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make few of the noises that examples share."""
    from earmark_training.keyword import examples

    monkeypatch.setattr(examples, "_NOISES", 5)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recording of the keyword by each of 24 people."""
    return write_recordings(tmp_path_factory.mktemp("computer"), COMPUTER, 24)


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write five utterances of each of eight people."""
    return write_speech(tmp_path_factory.mktemp("speech"), 8, 5)


@pytest.fixture(scope="session")
def training_set(recordings: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """Return the training set of the recordings and the speech, without synthesized words."""
    from earmark_training.data.corpus import SourceFile, decode
    from earmark_training.keyword.training_set import TrainingSet

    clips = [SourceFile(p, "clip", "training", "computer") for p in sorted(recordings.glob("*.wav"))]
    others = [SourceFile(p, "speech", "training", "") for p in sorted(speech.rglob("*.flac"))]
    corpus = decode(clips + others, tmp_path_factory.mktemp("corpus"))
    words, utterances = corpus.select("clip", "training"), corpus.select("speech", "training")
    return TrainingSet(corpus, ("computer",), tuple(words), (), (), tuple(utterances), ())


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model file to fine-tune: an untrained network with the metadata of the bundled model."""

    def build(folder: Path) -> None:
        import torch
        from earmark_spotter import SpotterModel
        from earmark_training.model.network import Network
        from earmark_training.model.onnx_file import pack, to_onnx
        from support.tiny_training import BASE_SHAPE

        torch.manual_seed(0)
        network = Network(BASE_SHAPE)
        for name, parameter in network.named_parameters():
            if "norm" in name:  # as if trained: in an untrained network blocks are the identity
                torch.nn.init.normal_(parameter, 0.5, 0.1)
        network = network.folded()
        network.mel_mean += -8.0
        network.mel_scale *= 0.3
        graph = to_onnx(network)
        bundled = SpotterModel.load().metadata
        metadata = replace(
            bundled,
            labels=("_silence_", "_unknown_", "yes", "no"),
            verifier=None,
            keywords={k: bundled.keywords[k] for k in ("yes", "no")},
            step_samples=BASE_SHAPE.frame_samples,
            frame_samples=BASE_SHAPE.frame_samples,
            receptive_field_samples=BASE_SHAPE.receptive_field_samples,
        )
        pack(graph, network.silent_state().numpy(), metadata, folder / "base.onnx")

    return build_once(tmp_path_factory, "base", build) / "base.onnx"


@pytest.fixture(scope="session")
def keyword_model(
    base: Path, recordings: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a model file for the keyword, with its report and its metrics beside it."""

    def build(folder: Path) -> None:
        from earmark_training.keyword.pipeline import KeywordRequest, create_model
        from support.tiny_training import FINE_TUNE_RECIPE

        request = KeywordRequest(
            {"computer": recordings},
            folder / "computer.onnx",
            (speech,),
            base=base,
            fa_per_hour=120,
            folds=2,
            recipe=replace(FINE_TUNE_RECIPE, steps=160),
        )
        create_model(request)

    return build_once(tmp_path_factory, "keyword_model", build) / "computer.onnx"
