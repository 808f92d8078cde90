from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from earmark_training.data import features, surroundings
from earmark_training.data.examples import OUTPUT_FRAMES, ExampleMaker, speech_onsets
from earmark_training.data.features import Variety
from earmark_training.model.network import Network
from earmark_training.model.recipe import REAL_ROOMS
from support.tiny_training import RECIPE, make_examples

if TYPE_CHECKING:
    from earmark_training.data.corpus import Corpus
    from earmark_training.data.features import FeatureCache


@pytest.fixture
def cache(caches: list[FeatureCache]) -> FeatureCache:
    return caches[0]


@pytest.fixture
def maker(cache: FeatureCache) -> ExampleMaker:
    return make_examples(cache)


@pytest.mark.slow
def test_the_same_seed_makes_the_same_batch(maker: ExampleMaker):
    first, again, other = maker.batch((1, 3)), maker.batch((1, 3)), maker.batch((1, 4))
    assert torch.equal(first.mel, again.mel)
    assert not torch.equal(first.mel, other.mel)


def test_targets_follow_the_end_of_a_word_whose_class_is_allowed_there(cache: FeatureCache):
    unknown, yes, no = range(1, 4)
    mix = replace(RECIPE.mix, noise=0, speech=0, keyword=0.6, unknown_word=0.4, add_noise=0)
    maker = make_examples(cache, mix)
    targets = set()
    for i in range(10):
        batch = maker.batch((i,))
        assert batch.allowed[..., :2].all()  # silence and unknown everywhere
        for example, first, target in batch.targets.tolist():
            targets.add(target)
            frames = batch.allowed[example, first : first + maker.target_frames]
            assert frames[:, target].all()
            # The word has ended: its last loud mel frame is before the end of the first target frame.
            stride = RECIPE.shape.frame_samples // RECIPE.shape.hop_samples
            last = RECIPE.shape.mel_frames - 1 + first * stride
            level = batch.mel[example].logsumexp(-1)
            assert level[max(0, last - 40) : last + 1].max() > level[last + 1 : last + 6].max() + 1
        assert not batch.allowed[..., 2:].all(-1).all()
    assert targets == {unknown, yes, no}


def test_in_noise_only_silence_is_allowed(cache: FeatureCache):
    batch = make_examples(cache, replace(RECIPE.mix, noise=1)).batch((0,))
    assert batch.allowed[..., 0].all()
    assert not batch.allowed[..., 1:].any()
    assert not len(batch.targets)


def test_keywords_in_read_speech_are_allowed_at_their_places_but_are_no_targets(cache: FeatureCache):
    maker = make_examples(cache, replace(RECIPE.mix, noise=0, speech=1, add_noise=0))
    batches = [maker.batch((i,)) for i in range(10)]
    assert not any(len(b.targets) for b in batches)  # their exact places are not known
    allowed = torch.cat([b.allowed for b in batches])
    assert allowed[..., :2].all()
    assert 0.1 < allowed[..., 2].float().mean() < 0.9  # in "well yes indeed", not in "a long day"
    assert not allowed[..., 3].any()  # there is no "no"


def test_a_network_has_one_output_for_each_frame_of_an_example(maker: ExampleMaker):
    network = Network(RECIPE.shape)
    assert network.logits(maker.batch((0,)).mel).shape[1] == OUTPUT_FRAMES


def test_the_mix_of_the_last_cycle_has_everything_at_once(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(features, "_SYNTHETIC_PIECES", 10)
    monkeypatch.setattr(features, "_VARIETIES", (Variety(1, 1, 1, 1, 10, rooms=True),))
    monkeypatch.setattr(surroundings, "_ROOMS", 5)
    cache = features.feature_cache(corpus, RECIPE.shape.front_end, 3)
    assert {"clip", "speech", "noise", "synthetic", "tones"} == {i.kind for i in cache.items}
    batch = make_examples(cache, replace(REAL_ROOMS, streams=32)).batch((0,))
    assert batch.mel.isfinite().all()
    assert len(batch.targets)
    assert batch.allowed[..., 2:].any()


def test_speech_starts_at_the_first_sound_and_after_pauses(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
):
    level = np.full((200, 40), 1e-6, np.float32)
    level[50:90], level[95:120], level[150:] = 1.0, 1.0, 1.0
    item = next(i for i in cache.items if i.kind == "speech")
    monkeypatch.setattr(cache, "power", lambda _: level)
    np.testing.assert_allclose(speech_onsets(cache, item), [50, 150], atol=2)
