"""The keyword from its spelling: with a tiny synthesizer, and with the real one if it is there."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_audio.progress import SILENT
from earmark_spotter import SpotterModel, final_scores
from earmark_training.errors import OutputError
from earmark_training.keyword.alignment import find_word
from earmark_training.keyword.kokoro import PAD_S, Kokoro, Line, _make_cache, _store, padded
from earmark_training.keyword.neural_speech import _carriers, read_confusables, read_keyword
from earmark_training.keyword.pipeline import KeywordRequest, create_model
from earmark_training.keyword.pronunciation import parse, pronounce, spell
from earmark_training.keyword.training_set import NeuralVoices, voice_folds
from support.tiny_training import FINE_TUNE_RECIPE
from support.tiny_voices import RATE, TinyReader, say_phonemes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_audio.progress import Progress

pytest.importorskip("phonemizer", reason="the extra `voices` is not installed")
KOKORO = os.environ.get("EARMARK_KOKORO")
needs_kokoro = pytest.mark.skipif(
    not KOKORO, reason="EARMARK_KOKORO does not name the folder of the neural voices"
)
LINES = [Line("dʒˈɑːɹvɪs.", "af_heart"), Line("dʒˈɑːɹvɪs.", "bm_george", "af_heart", 0.4, 1.2)]


def test_a_word_is_found_in_a_sentence_of_the_same_voice():
    word = padded(say_phonemes("kola", "a"), RATE)
    sentence = padded(say_phonemes("mi sun kola tref", "a"), RATE)
    before = len(padded(say_phonemes("mi sun ", "a"), RATE)) - int(PAD_S * 16_000)
    place = find_word(word, sentence)
    assert place is not None
    assert abs(place[0] - before) < 0.12 * 16_000
    assert abs(place[1] - place[0] - (len(word) - 2 * PAD_S * 16_000)) < 0.12 * 16_000


@pytest.mark.slow
def test_the_keyword_is_read_by_all_voices_alone_and_in_sentences(tmp_path: Path):
    reader = TinyReader(tmp_path)
    kola = parse("kˈola", "en")
    found = read_keyword(reader, [kola], "en", keywords=[kola], seed=1, progress=SILENT, desc="")
    assert {v for k in found for v in k.voice.split("+")} == set(reader.voices)
    assert any("+" in k.voice for k in found)
    for spoken in found:
        assert 0 <= spoken.word[0] < spoken.word[1] <= soundfile.info(spoken.path).frames


class _LineReader(TinyReader):
    """Returns the phonemes of each line in place of its file."""

    def read(self, lines: Sequence[Line], *, progress: Progress, desc: str) -> list[Path]:
        return [Path(line.phonemes.rstrip(".!?,")) for line in lines]


def test_no_keyword_is_a_confusable_of_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    computer, commuter, phrase, banana = pronounce(["computer", "commuter", "hey computer", "banana"], "en")
    monkeypatch.setattr(
        "earmark_training.keyword.neural_speech.confusables", lambda *_, **__: [commuter, banana]
    )
    for keywords, expected in (([computer, phrase], [commuter, banana]), ([computer, commuter], [banana])):
        read = read_confusables(
            _LineReader(tmp_path),
            "computer",
            computer,
            "en",
            keywords=keywords,
            seed=1,
            progress=SILENT,
            desc="",
        )
        assert {spell(phonemes) for phonemes, _ in read} == set(map(spell, expected))
        assert all(str(path) == spell(phonemes) for phonemes, path in read)


@pytest.mark.parametrize(
    ("others", "absent"), [(["hey computer"], "hˈeɪ"), (["stop", "please"], "plˈiːz"), ([], "")]
)
def test_the_words_around_a_keyword_make_no_other_one(others: list[str], absent: str):
    computer, *rest = pronounce(["computer", *others], "en")
    around = {spell(words) for pair in _carriers("en", computer, [computer, *rest]) for words in pair}
    assert {"ænd", "oʊkˈeɪ", "hˈeɪ", "plˈiːz"} - around == ({absent} if absent else set())


def test_words_around_a_keyword_are_used_if_all_of_them_are_keywords():
    keywords = pronounce(["और", "कृपया"], "hi")
    assert len(_carriers("hi", keywords[0], keywords)) == 3


@pytest.fixture(scope="module")
def two_keywords(base: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of two keywords that nobody recorded."""
    folder = tmp_path_factory.mktemp("spelled")
    words = {"kola": parse("kˈola", "en"), "brime": parse("bɹˈimɛ", "en")}
    request = KeywordRequest(
        dict.fromkeys(words),
        folder / "two.onnx",
        (speech,),
        voices=NeuralVoices(TinyReader(folder), "en", words),
        base=base,
        fa_per_hour=120,
        # The tiny reader's phonemes are pitches, which another speed would change.
        recipe=replace(
            FINE_TUNE_RECIPE,
            steps=200,
            mix=replace(FINE_TUNE_RECIPE.mix, synthesized_speed=(0.95, 1.05)),
        ),
    )
    create_model(request)
    return request.out


def test_one_model_has_all_keywords_and_tells_them_apart(two_keywords: Path):
    model = SpotterModel.load(two_keywords)
    assert model.metadata.labels == ("_silence_", "_unknown_", "kola", "brime")
    right = 0
    for i, word in enumerate(("kola", "bɹimɛ")):
        for person in range(8):
            samples = np.pad(padded(say_phonemes(word, f"stranger {person}"), RATE), 16_000)
            scores = final_scores(model, samples)[:, 2:].max(0)
            right += int(scores[i] > scores[1 - i])
    assert right >= 14


def test_the_report_plays_examples_and_names_synthetic_voices(two_keywords: Path):
    document = json.loads(two_keywords.with_suffix(".metrics.json").read_text())
    assert [k["keyword"] for k in document["keywords"]] == ["kola", "brime"]
    assert all(k["measured_on"] == "synthetic voices" and k["measured"] > 10 for k in document["keywords"])
    page = two_keywords.with_suffix(".report.html").read_text()
    assert page.count("<audio ") >= 8
    assert 'src="data:audio/wav;base64,' in page
    assert "synthetic voices" in page


@pytest.mark.slow
def test_voices_that_measure_are_in_no_example_of_the_training(tmp_path: Path):
    from earmark_training.data.corpus import Recording

    reader = TinyReader(tmp_path)
    kola = parse("kˈola", "en")
    found = read_keyword(reader, [kola], "en", keywords=[kola], seed=1, progress=SILENT, desc="")
    words = [Recording("clip", "training", "kola", 0, 1, k.word, k.voice) for k in found]
    (left_out,) = voice_folds(words, 1, seed=1)
    of_training = {v for i, w in enumerate(words) if i not in left_out for v in w.speaker.split("+")}
    alone = {words[i].speaker for i in left_out if "+" not in words[i].speaker}
    assert alone
    assert not alone & of_training


@needs_kokoro
def test_the_real_voices_read_into_the_cache_once(tmp_path: Path):
    reader = Kokoro(Path(KOKORO or ""), tmp_path / "cache")
    assert len(reader.voices) == 54
    first = reader.read(LINES, desc="")
    for path in first:
        samples, rate = soundfile.read(path)
        assert rate == 16_000
        assert 0.9 < len(samples) / rate < 2.0
        assert np.abs(samples).max() > 0.3
    times = [p.stat().st_mtime_ns for p in first]
    first[1].unlink()  # as if interrupted before it was written
    again = reader.read(LINES, desc="")
    assert again == first
    assert again[0].stat().st_mtime_ns == times[0]
    assert again[1].stat().st_mtime_ns != times[1]


@needs_kokoro
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_a_damaged_file_of_the_cache_is_read_again(left: float, tmp_path: Path):
    reader = Kokoro(Path(KOKORO or ""), tmp_path / "cache")
    (path,) = reader.read(LINES[:1], desc="")
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    assert reader.read(LINES[:1], desc="") == [path]
    assert path.read_bytes() == content


def test_a_full_disk_is_reported_and_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="no space on the disk"):
        _store(tmp_path / "ab" / "line.flac", np.zeros(100, np.float32))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_file_of_the_cache_that_cannot_be_written_for_another_cause_than_space_is_reported(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        _store(tmp_path / ("a" * 300 + ".flac"), np.zeros(100, np.float32))


def test_a_cache_that_cannot_be_written_is_reported():
    with pytest.raises(OutputError, match="/proc/none cannot be written"):
        _make_cache(Path("/proc/none"))
