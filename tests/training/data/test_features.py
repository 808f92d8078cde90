from __future__ import annotations

import os
import resource
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from earmark_training.data.corpus import Corpus, prepare
from earmark_training.data.features import FeatureCache, Variety, feature_cache
from earmark_training.data.front_end import LOG_FLOOR
from earmark_training.errors import CorpusError, OutputError
from earmark_training.model.network import Network
from support.tiny_training import RECIPE

if TYPE_CHECKING:
    from pathlib import Path


def test_the_cache_has_every_training_recording_plain_and_varied(caches: list[FeatureCache], corpus: Corpus):
    cache, clips = caches[0], corpus.select("clip", "training")
    plain = [i for i in cache.items if i.kind == "clip" and i.plain]
    assert [i.text for i in plain] == [c.text for c in clips]
    assert len([i for i in cache.items if i.kind == "clip"]) > 2 * len(clips)
    # The features of a plain item are those that the network computes for the recording after silence.
    shape, clip = RECIPE.shape, corpus.samples(clips[3])
    samples = np.pad(clip, (shape.window_samples - shape.hop_samples, 0))
    expected = Network(shape).log_mel(torch.from_numpy(samples[None]))[0].numpy()
    actual = np.log(cache.power(plain[3]) + LOG_FLOOR)
    np.testing.assert_allclose(actual, expected, atol=0.02)
    (word, start, end), located = plain[3].words[0], clips[3].word
    assert located is not None
    assert (word, start) == (clips[3].text, located[0] // shape.hop_samples)
    assert abs(end * shape.hop_samples - located[1]) < shape.hop_samples


def test_features_are_computed_once(
    corpus: Corpus, caches: list[FeatureCache], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("earmark_training.data.features._compute", None)
    assert feature_cache(corpus, RECIPE.shape.front_end).folder == caches[0].folder


def test_the_next_cycle_has_other_variants_of_the_same_recordings(caches: list[FeatureCache]):
    first, second = caches
    first_clips, second_clips = ([i for i in c.items if i.kind == "clip"] for c in caches)
    assert [i.text for i in first_clips] == [i.text for i in second_clips]
    for a, b in zip(first_clips[:8], second_clips[:8], strict=True):
        assert a.plain == b.plain == np.array_equal(first.power(a), second.power(b))


def test_the_features_of_a_corpus_that_was_replaced_are_computed_again(
    clips_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("earmark_training.data.features._VARIETIES", (Variety(1, 1, 1),))
    monkeypatch.setattr("earmark_training.data.features._SYNTHETIC_PIECES", 1)
    fewer = shutil.copytree(clips_dir, tmp_path / "clips")
    shutil.rmtree(fewer / "yes")
    for folder in (clips_dir, fewer):
        corpus = prepare(folder, [], tmp_path / "corpus")
        cache = feature_cache(corpus, RECIPE.shape.front_end)
        words = {i.text for i in cache.items if i.kind == "clip"}
        assert words == {path.name for path in folder.glob("[a-z]*") if path.is_dir()}


def test_features_that_cannot_be_written_are_reported(
    clips_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("earmark_training.data.features._VARIETIES", (Variety(1, 1, 1),))
    monkeypatch.setattr("earmark_training.data.features._SYNTHETIC_PIECES", 1)
    corpus = prepare(clips_dir, [], tmp_path / "corpus")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match=r"mel\.f16 cannot be written: File too large"):
            feature_cache(corpus, RECIPE.shape.front_end)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("name", "length"), [("index.json", 0), ("index.json", 40), ("mel.f16", 0), ("mel.f16", 80)]
)
def test_features_that_are_not_complete_are_rejected(
    name: str, length: int, caches: list[FeatureCache], tmp_path: Path
):
    folder = shutil.copytree(caches[0].folder, tmp_path / "mel")
    os.truncate(folder / name, length)
    with pytest.raises(CorpusError, match="mel contains no complete features: delete this folder"):
        FeatureCache(folder)
