from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_training.data.corpus import Corpus, prepare, speaker_split
from earmark_training.data.endpointing import locate_word
from earmark_training.data.vocabulary import keywords_in
from earmark_training.errors import CorpusError

if TYPE_CHECKING:
    from pathlib import Path


def quiet(iterable, **_):
    return iterable


@pytest.fixture(scope="module")
def corpus(clips_dir: Path, speech_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(clips_dir, [speech_dir], tmp_path_factory.mktemp("corpus"), progress=quiet)


def test_the_list_file_decides_the_split(corpus: Corpus):
    assert len(corpus.select("clip", "training")) == 3 * 24
    assert len(corpus.select("clip", "validation")) == 3 * 6


def test_samples_come_back_as_they_were_written(corpus: Corpus, clips_dir: Path):
    clip = next(c for c in corpus.select("clip", "training") if c.text == "no")
    written, _ = soundfile.read(clips_dir / "no" / "00000000_nohash_0.wav", dtype="float32")
    np.testing.assert_allclose(corpus.samples(clip), written, atol=1 / 32768)


def test_noise_is_split_in_time_and_not_shared(corpus: Corpus):
    (training,), (validation,) = corpus.select("noise", "training"), corpus.select("noise", "validation")
    assert training.start + training.length == validation.start
    assert validation.length == 16_000


def test_every_utterance_keeps_its_transcript_and_speakers_do_not_mix(corpus: Corpus):
    texts = [u.text for split in ("training", "validation") for u in corpus.select("speech", split)]
    assert sorted(set(texts)) == ["a long day", "well yes indeed"]
    assert len(texts) == 10
    assert len(corpus.select("speech", "validation")) % 2 == 0


def test_a_prepared_corpus_is_found_again(corpus: Corpus, tmp_path: Path):
    with pytest.raises(CorpusError, match="earmark-train prepare"):
        Corpus(tmp_path)


def test_other_rates_are_resampled(clips_dir: Path, tmp_path: Path):
    for word in ("yes", "_background_noise_"):
        (tmp_path / "in" / word).mkdir(parents=True)
        soundfile.write(tmp_path / "in" / word / "a_nohash_0.flac", np.zeros((44_100, 2)), 44_100)
    corpus = prepare(tmp_path / "in", [], tmp_path / "out", progress=quiet)
    assert [r.length for r in corpus.recordings if r.kind == "clip"] == [16_000]


def test_folders_that_cannot_be_used_are_named(clips_dir: Path, tmp_path: Path):
    with pytest.raises(CorpusError, match="holds no clips"):
        prepare(tmp_path, [], tmp_path / "out", progress=quiet)
    (tmp_path / "yes").mkdir()
    soundfile.write(tmp_path / "yes" / "a_nohash_0.wav", np.zeros(100), 16_000)
    with pytest.raises(CorpusError, match="_background_noise_"):
        prepare(tmp_path, [], tmp_path / "out", progress=quiet)
    with pytest.raises(CorpusError, match="transcripts"):
        prepare(clips_dir, [tmp_path], tmp_path / "out", progress=quiet)


def test_the_hash_rule_is_the_data_sets_own():
    # Speakers and splits from the data set's published list files.
    assert speaker_split("067f61e2_nohash_3.wav") == "validation"
    assert speaker_split("067f61e2_nohash_0.opus") == "validation"
    assert speaker_split("004ae714_nohash_0.wav") == "training"


def test_the_hash_rule_agrees_with_the_list_files_of_the_real_data(data_dir: Path):
    folder = data_dir / "speech_commands"
    listed = set((folder / "validation_list.txt").read_text().split())
    wrong = [
        path
        for path in folder.glob("[a-z]*/*_nohash_*")
        if (speaker_split(path.name) == "validation") != (f"{path.parent.name}/{path.name}" in listed)
    ]
    assert wrong == []


def test_a_word_is_located_by_its_energy():
    rng = np.random.default_rng(0)
    clip = (rng.standard_normal(16_000) * 1e-3).astype(np.float32)
    clip[5_000:9_000] += np.sin(np.arange(4_000) * 0.2).astype(np.float32) * 0.3
    found = locate_word(clip, 16_000)
    assert found is not None
    assert abs(found[0] - 5_000) <= 800
    assert abs(found[1] - 9_000) <= 800


def test_a_stop_inside_a_word_does_not_end_it():
    clip = np.full(16_000, 1e-3, np.float32)
    clip[4_000:6_000] = 0.3
    clip[7_200:9_000] = 0.3  # 75 ms later
    found = locate_word(clip, 16_000)
    assert found is not None
    assert found[0] <= 4_000
    assert found[1] >= 9_000


@pytest.mark.parametrize("clip", [np.zeros(16_000), np.full(16_000, 0.3), np.ones(100)])
def test_no_word_is_located_where_nothing_stands_out(clip: np.ndarray):
    assert locate_word(clip.astype(np.float32), 16_000) is None


def test_homophones_count_as_the_keyword():
    assert keywords_in("I want TO write", ("two", "right", "no")) == {"two", "right"}
    assert keywords_in("nothing of the sort", ("no", "two")) == frozenset()
