from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from earmark_spotter import Spotter, SpotterModel
from earmark_training.errors import OutputError, RecipeError
from earmark_training.keyword import head_training
from earmark_training.keyword.checkpoints import unfinished
from earmark_training.keyword.fine_tune import FIRST_KEYWORD, score, work
from earmark_training.keyword.head_training import train_head
from earmark_training.keyword.mel_variation import vary_mel
from earmark_training.keyword.pipeline import KeywordRequest, create_model
from earmark_training.model.speech_embedding import EmbeddingNetwork, EmbeddingShape
from support.synthetic_words import BANANA, COMPUTER, say
from support.tiny_training import FINE_TUNE_RECIPE

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.keyword.training_set import TrainingSet

pytestmark = pytest.mark.usefixtures("few_sounds")
NETWORK = EmbeddingNetwork(EmbeddingShape(3))
RECIPE = replace(FINE_TUNE_RECIPE, steps=8, learning_rate=3e-3, ema_decay=0.9, hard_negatives=20)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_training, "_BATCH", 24)


@torch.no_grad()
def test_scores_do_not_depend_on_how_the_audio_is_cut():
    network = EmbeddingNetwork(EmbeddingShape(3)).eval()
    frame = network.shape.frame_samples
    pcm = torch.from_numpy(np.pad(say(COMPUTER, 3, 1), 20_000))[None]
    pcm = pcm[:, : pcm.shape[1] // frame * frame].float()
    whole, _ = network(pcm, network.silent_state())
    state, pieces = network.silent_state(), []
    for piece in torch.split(pcm, [frame, 3 * frame, 2 * frame, pcm.shape[1] - 6 * frame], dim=1):
        scores, state = network(piece, state)
        pieces.append(scores)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_pass_without_a_past_has_the_embeddings_of_a_stream():
    network = EmbeddingNetwork(EmbeddingShape(3)).eval()
    shape = network.shape
    pcm = torch.randn(1, shape.unsmoothed_receptive_field_samples + 2 * shape.frame_samples) * 0.05
    embeddings, _ = network.embedding(network.embedding.log_mel(pcm))
    assert embeddings.shape == (1, shape.embeddings + 2, 96)
    assert network.logits(embeddings).shape == (1, 3, 3)


@torch.no_grad()
def test_the_probability_of_helpers_is_part_of_that_of_unknown_speech():
    network = EmbeddingNetwork(EmbeddingShape(3, helpers=2)).eval()
    pcm = torch.randn(1, 10 * network.shape.frame_samples) * 0.05
    scores, _ = network(pcm, network.silent_state())
    assert scores.shape == (1, 10, 3)
    torch.testing.assert_close(scores.sum(-1), torch.ones(1, 10))
    network.head.bias[3:] = 30.0
    scores, _ = network(pcm, network.silent_state())
    assert scores[0, -1, 1] > 0.99


def test_a_head_tells_helpers_apart_and_has_no_score_for_them(training_set: TrainingSet):
    helpers = [replace(r, text="sentence", word=(0, min(r.length, 8_000))) for r in training_set.speech[:4]]
    recipe = replace(RECIPE, steps=1, mix=replace(RECIPE.mix, size=5))
    trained = train_head(NETWORK, replace(training_set, helpers=tuple(helpers)), recipe)
    assert (trained.shape.classes, trained.shape.helpers) == (3, 1)
    assert score(trained, np.zeros(16_000, np.float32)).shape[1] == 3


@pytest.mark.slow
def test_the_head_detects_its_word_from_strangers(training_set: TrainingSet):
    recipe = replace(RECIPE, steps=60, mined_hours=0.01, mix=replace(RECIPE.mix, size=8))
    trained = train_head(NETWORK, training_set, recipe)
    own, other = (
        [score(trained, np.pad(say(word, 70 + i, i), 16_000))[:, FIRST_KEYWORD].max() for i in range(6)]
        for word in (COMPUTER, BANANA)
    )
    assert np.median(own) > np.max(other)


@pytest.mark.slow
def test_an_interrupted_training_continues_with_the_same_result(
    training_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(head_training, "_CHECKPOINT_STEPS", 2)
    monkeypatch.setattr(head_training, "_BATCH", 8)
    recipe = replace(RECIPE, mined_hours=0.01, mix=replace(RECIPE.mix, size=5))
    work_done, done, done_before = list[float](), list[float](), list[float]()
    whole = train_head(NETWORK, training_set, recipe, count=work_done.append, skip=done_before.append)
    assert not done_before
    file, embed, started = tmp_path / "head.pt", head_training._Training.embed, list[int]()

    def interrupted_at_step_7(training: head_training._Training, batch: Any, step: int) -> None:
        started.append(step)
        if started.count(7) == 1 and step == 7:
            raise KeyboardInterrupt
        embed(training, batch, step)

    monkeypatch.setattr(head_training._Training, "embed", interrupted_at_step_7)
    with pytest.raises(KeyboardInterrupt):
        train_head(NETWORK, training_set, recipe, checkpoint=file)
    resumed = train_head(
        NETWORK, training_set, recipe, checkpoint=file, count=done.append, skip=done_before.append
    )
    assert len(done_before) == 1
    # Two steps were left. The mining before step 4 was done; its last recording exceeds the hours a little.
    assert done == [1, 1]
    assert sum(done) + sum(done_before) == pytest.approx(work(training_set, recipe))
    assert sum(work_done) == pytest.approx(work(training_set, recipe), rel=0.02)
    assert started == [0, 1, 2, 3, 4, 5, 6, 7, 6, 7]  # the last checkpoint was after step 5
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_full_disk_is_reported_and_leaves_no_part_of_a_checkpoint(
    training_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    training = head_training._Training(EmbeddingNetwork(EmbeddingShape(3)), RECIPE)
    with pytest.raises(OutputError, match=r"head\.pt cannot be written: No space left on device"):
        training.save(tmp_path / "head.pt", 1, training_set, [])
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_rejected(training_set: TrainingSet, tmp_path: Path):
    file = tmp_path / "head.pt"
    training = head_training._Training(EmbeddingNetwork(EmbeddingShape(3)), RECIPE)
    training.save(file, 1, training_set, [])
    whole = file.read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(RecipeError, match=r"head\.pt is not a checkpoint.*: delete it to start over"):
            train_head(NETWORK, training_set, RECIPE, checkpoint=file)


def test_variation_changes_examples_within_bounds_and_is_reproducible():
    mel = 4 + 4 * torch.rand(6, 120, 32)
    first, again = (vary_mel(np.random.default_rng(3), mel) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == mel.shape
    assert not torch.equal(first, mel)
    assert (first - mel).abs().max() < 5
    assert first.isfinite().all()


@pytest.mark.slow
def test_a_model_on_the_embedding_is_served_and_leaves_no_checkpoint(
    recordings: Path, speech: Path, tmp_path: Path
):
    out = tmp_path / "computer.onnx"
    request = KeywordRequest(
        {"computer": recordings}, out, (speech,), fa_per_hour=120, folds=0, recipe=replace(RECIPE, steps=24)
    )
    model = create_model(request)
    assert out.stat().st_size < 3_000_000
    assert not unfinished(out).exists()
    assert model.metadata.training.sources[0].license == "Apache-2.0"
    spotter = Spotter(SpotterModel.load(out))
    found = 0
    for i in range(6):
        samples = np.pad(say(COMPUTER, 80 + i, i), 16_000)
        found += len(spotter.feed((samples * 32767).astype("<i2").tobytes()))
    assert found + len(spotter.flush()) >= 4
