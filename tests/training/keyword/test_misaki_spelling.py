"""Japanese and Mandarin: phonemes, the distance of words, and the message about missing packages."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest
from earmark_audio.progress import SILENT
from earmark_training.keyword.misaki_spelling import _japanese, _mandarin
from earmark_training.keyword.neural_speech import _CARRIERS, read_keyword
from earmark_training.keyword.pronunciation import check_pronunciation, distance, parse, pronounce, spell
from earmark_training.keyword.similar_words import common_words, confusables, sounds_like
from earmark_training.keyword.voice_files import SynthesisError
from support.tiny_voices import TinyReader

if TYPE_CHECKING:
    from pathlib import Path

NEEDED = {
    "ja": ("fugashi", "jaconv", "misaki", "mojimoji", "unidic_lite"),
    "zh": ("cn2an", "jieba", "misaki", "ordered_set", "pypinyin"),
}
MISSING = {
    language: [name for name in names if importlib.util.find_spec(name) is None]
    for language, names in NEEDED.items()
}


def _needs(language: str) -> pytest.MarkDecorator:
    missing = ", ".join(MISSING[language])
    return pytest.mark.skipif(bool(missing), reason=f"the extra `voices-ja-zh` is not installed: {missing}")


def _each(*values: tuple[str, ...]) -> list[object]:
    """Return parameters, the first of which is the language. To load the words of Mandarin takes seconds."""
    slow = {"zh": [pytest.mark.slow]}
    return [pytest.param(*value, marks=[_needs(value[0]), *slow.get(value[0], [])]) for value in values]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    _each(
        ("ja", "こんにちは", "koɲɲiʨiβa"),
        ("ja", "電気", "deŋkʲi"),
        ("ja", "ねえ ビール", "neː bʲiːɾɯ"),
        ("ja", "ｶﾒﾗ", "kameɾa"),
        ("zh", "你好小明", "ni↓xau↓ ɕjau↓mi↗ŋ"),
        ("zh", "女儿", "ny↓ɚ↗"),
        ("zh", "臺灣", "tʰai↗ wa→n"),
        ("zh", "吃", "ꭧʰɨ→"),
    ),
)
def test_a_word_is_spelled_as_the_voices_were_trained(language: str, text: str, expected: str):
    (words,) = pronounce([text], language)
    assert spell(words) == expected
    assert parse(expected, language) == words


@pytest.mark.parametrize("language", _each(("ja",), ("zh",)))
def test_no_phoneme_is_one_that_the_voices_do_not_know(language: str, monkeypatch: pytest.MonkeyPatch):
    vocabulary = pytest.importorskip("kokoro_onnx.config", reason="the extra `voices` is not installed")
    from wordfreq import top_n_list

    frequent = top_n_list(language, 400)
    monkeypatch.setattr("wordfreq.top_n_list", lambda *_: [*frequent, "tシャツ", "google"])
    common = common_words.__wrapped__(language)
    assert len(common) > 200
    assert {p for w in common for p in "".join(w.phonemes)} <= set(vocabulary.DEFAULT_VOCAB)
    carriers = pronounce([text for pair in _CARRIERS[language] for text in pair if text], language)
    assert {p for words in carriers for p in spell(words)} <= {*vocabulary.DEFAULT_VOCAB, " "}


@pytest.mark.slow
@_needs("zh")
def test_words_that_differ_in_a_tone_are_near_but_not_the_same():
    teacher, honest, other = (words[0] for words in pronounce(["老师", "老实", "电脑"], "zh"))
    assert 0.45 < distance(teacher, honest) < 1 < distance(teacher, other)


@_needs("ja")
def test_words_that_differ_in_the_length_of_a_vowel_are_not_the_same():
    beer, building = pronounce(["ビール", "ビル"], "ja")
    assert not sounds_like(beer, building)


@pytest.mark.parametrize(
    ("language", "keyword", "common", "expected"),
    _each(
        ("zh", "老师", "老实 老是 电脑 律师", "lau↓ʂɨ↗"),  # another tone
        ("ja", "ビール", "ビル 電気 シール", "bʲiɾɯ"),  # another length
    ),
)
def test_confusables_have_near_words_and_no_phoneme_of_another_language(
    language: str, keyword: str, common: str, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("wordfreq.top_n_list", lambda *_: common.split())
    monkeypatch.setattr("earmark_training.keyword.similar_words.common_words", common_words.__wrapped__)
    (words,) = pronounce([keyword], language)
    found = {spell(c) for c in confusables(keyword, words, language, seed=1)}
    assert expected in found
    assert len(found) > 40
    assert not any(set(text) & set("ɪæʌɹθð") or text.startswith("ː") for text in found)


@pytest.mark.parametrize(
    ("language", "keyword", "unread"), _each(("ja", "鑫の家", "鑫"), ("zh", "你\U0003106c", "\U0003106c"))
)
def test_a_character_without_a_reading_is_not_left_out(language: str, keyword: str, unread: str):
    (words,) = pronounce([keyword], language)
    with pytest.raises(SynthesisError, match=f"symbols that the voices do not know: {unread}.*misaki's"):
        check_pronunciation(keyword, words, language, lambda text: [c for c in text if c == unread])


@pytest.mark.slow
@pytest.mark.parametrize(("language", "keyword"), _each(("ja", "電気"), ("zh", "你好小明")))
def test_a_keyword_is_read_alone_and_between_words(language: str, keyword: str, tmp_path: Path):
    reader = TinyReader(tmp_path)
    (words,) = pronounce([keyword], language)
    found = read_keyword(reader, [words], language, keywords=[words], seed=1, progress=SILENT, desc="")
    assert len(found) > 200


@pytest.mark.parametrize(("language", "ipa"), [("ja", "deŋkʲi"), ("zh", "ni↓xau↓ ɕjau↓mi↗ŋ")])
def test_a_pronunciation_may_be_given_in_misakis_symbols(language: str, ipa: str):
    assert spell(parse(ipa, language)) == ipa
    with pytest.raises(SynthesisError, match=r"symbols that are not IPA: 7\. Use misaki's symbols"):
        parse(f"{ipa}7", language)


@pytest.mark.parametrize(("language", "speller"), [("ja", _japanese), ("zh", _mandarin)])
def test_packages_that_are_missing_are_named(language: str, speller: object, monkeypatch: pytest.MonkeyPatch):
    speller.cache_clear()  # type: ignore[attr-defined]
    for module in ("misaki", "misaki.cutlet", "misaki.zh"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SynthesisError, match=f"--language {language} needs .*`voices-ja-zh`.*Python 3.11"):
        pronounce(["あ"], language)
