from __future__ import annotations

import pytest
from earmark_training.keyword.pronunciation import (
    accents,
    check_letters,
    check_pronunciation,
    distance,
    is_vowel,
    parse,
    pronounce,
    spell,
)
from earmark_training.keyword.similar_words import bare, common_words, confusables, containing, homophones
from earmark_training.keyword.voice_files import SynthesisError

pytest.importorskip("phonemizer", reason="the extra `voices` is not installed")


def test_words_and_phrases_are_pronounced():
    one, phrase = pronounce(["computer", "hey computer"], "en")
    assert bare(one[0]) == ("k", "ə", "m", "p", "j", "uː", "ɾ", "ɚ")
    assert len(phrase) == 2
    assert phrase[1] == one[0]
    assert [is_vowel(p) for p in one[0]] == [False, True, False, False, False, True, False, True]


@pytest.mark.parametrize(
    ("keyword", "language", "expected"),
    [("button", "en", "bˈʌ\u0294ən"), ("allume le salon", "fr", "alˈym lə salˈɔ̃"), ("pd", "it", "pˌidˈiː")],
)
def test_a_pronunciation_has_no_marks_that_the_voices_do_not_know(keyword: str, language: str, expected: str):
    (words,) = pronounce([keyword], language)
    assert spell(words) == expected
    assert parse("bˈʌ\u0294n\u0329", "en") == pronounce(["button"], "en")[0]


def test_the_voices_know_the_symbols_of_all_accents():
    for keyword in ("computer", "where to", "button", "after"):
        for words in accents(keyword, "en"):
            assert not set(spell(words)) & set("ʉʍ:\u0329-"), keyword


def test_a_pronunciation_may_have_any_unicode_form_and_the_letter_g():
    assert parse("kɔɾasˈ\u00e3ʊ", "en") == parse("kɔɾasˈa\u0303ʊ", "en")
    assert parse("\u00e7a", "en") == parse("c\u0327a", "en") == [("ç", "a")]
    assert parse("gˈɪg", "en") == parse("ɡˈɪɡ", "en")


@pytest.mark.parametrize(
    ("keyword", "language"),
    [
        ("你", "en"),
        ("hey да", "fr"),
        ("नमस्ते", "es"),
        ("あ", "hi"),
        ("hey 小明", "zh"),
        ("お你好", "zh"),
        ("tシャツ", "ja"),
    ],
)
def test_letters_that_would_be_named_are_refused(keyword: str, language: str):
    with pytest.raises(SynthesisError, match="has letters that are not those of the language"):
        check_letters(keyword, language)


@pytest.mark.parametrize(
    ("keyword", "language"),
    [
        ("café", "en"),
        ("d’accord", "fr"),
        ("नमस्ते computer", "hi"),
        ("rock-n-roll", "en"),
        ("ヴァイオリン 人々 ｶﾒﾗー", "ja"),
        ("臺灣", "zh"),
    ],
)
def test_letters_of_a_language_are_read(keyword: str, language: str):
    check_letters(keyword, language)


def test_a_given_pronunciation_is_parsed_into_the_same_phonemes():
    (words,) = pronounce(["jarvis"], "en")
    assert [bare(w) for w in parse("/dʒˈɑːvɪs/", "en")] == [("dʒ", "ɑː", "v", "ɪ", "s")]
    assert spell(parse(spell(words), "en")) == spell(words)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ["computer", "jarvis", "hey nineteen", "boy", "fire", "very", "people", "idea", "let's go"]),
        ("en-gb", ["home", "here", "hour", "really"]),
        ("es", ["rey", "autobús", "pero"]),
        ("it", ["stazione", "stesso", "ciao"]),
        ("pt", ["não", "rei", "dia"]),
        ("fr", ["bonjour"]),
        ("hi", ["बड़ी", "नमस्ते"]),
    ],
)
def test_a_given_pronunciation_has_the_phonemes_of_the_spelled_word(language: str, words: list[str]):
    for word, spoken in zip(words, pronounce(words, language), strict=True):
        assert parse(spell(spoken), language) == spoken, word


def test_a_pronunciation_may_be_written_as_dictionaries_write_it():
    assert parse("/d͡ʒˈɑːɹ.vɪs/", "en") == parse("ʤˈɑːɹvɪs", "en") == pronounce(["jarvis"], "en")[0]


def test_no_phoneme_is_written_with_punctuation_at_which_the_voices_pause():
    assert spell(pronounce(["बड़ी"], "hi")[0]) == "bˈʌɽi"


@pytest.mark.parametrize(
    ("pronunciation", "message"),
    [
        ("", "has no vowel"),
        ("   ", "has no vowel"),
        ("pst", "has no vowel"),
        ("ˈˈ ˌ", "has no vowel"),
        ("kəmp7", "symbols that are not IPA: 7"),
        ("ˈɛ!🦊", "symbols that are not IPA: ! 🦊"),
        ("kʘa", "symbols that the voices do not know: ʘ"),
        ("kə" * 20, "has 40 phonemes"),
    ],
)
def test_a_pronunciation_that_cannot_be_read_is_refused(pronunciation: str, message: str):
    with pytest.raises(SynthesisError, match=message):
        check_pronunciation(
            "fox", parse(pronunciation, "en"), "en", lambda text: ["ʘ"] if "ʘ" in text else []
        )


def test_similar_words_are_nearer_than_others():
    computer, commuter, banana, same = (
        w[0] for w in pronounce(["computer", "commuter", "banana", "computer"], "en")
    )
    assert distance(computer, same) == 0
    assert 0 < distance(computer, commuter) < 1 < distance(computer, banana)


def test_common_words_have_vowel_signs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wordfreq.top_n_list", lambda *_: ["समय", "किताब", "2", "a2"])
    assert [w.text for w in common_words.__wrapped__("hi")] == ["समय", "किताब"]


@pytest.mark.slow
def test_the_confusables_of_a_word_do_not_sound_like_it():
    (words,) = pronounce(["jarvis"], "en")
    found = confusables("jarvis", words, "en", seed=1)
    texts = [spell(c) for c in found]
    assert len(texts) == len(set(texts)) > 60
    assert all(distance(words[0], [p for w in c for p in w]) > 0.4 for c in found)
    service, harvest = (spell(w) for w in pronounce(["service", "harvest"], "en"))
    assert {service, harvest} <= set(texts)


@pytest.mark.slow
def test_the_confusables_of_a_phrase_have_its_words_alone_and_other_words_in_their_place():
    (words,) = pronounce(["hey earmark"], "en")
    texts = [spell(c) for c in confusables("hey earmark", words, "en", seed=1)]
    hey, earmark = (spell([w]) for w in words)
    assert {hey, earmark} <= set(texts)
    assert any(t.endswith(" " + earmark) for t in texts)
    assert any(t.startswith(hey + " ") for t in texts)


@pytest.mark.slow
def test_the_confusables_of_a_word_have_two_words_that_sound_like_it_together():
    (words,) = pronounce(["computer"], "en")
    pairs = [c for c in confusables("computer", words, "en", seed=1) if len(c) == 2]
    come, peter, compute = (w[0] for w in pronounce(["come", "Peter", "compute"], "en"))
    assert (come, peter) in pairs
    assert 20 < len(pairs) == len(set(pairs))
    for word in (come, peter, compute):
        assert 1 <= sum(word in pair for pair in pairs) <= 3, "few pairs share a word"


@pytest.mark.slow
@pytest.mark.parametrize(("keyword", "homophone"), [("know", "no"), ("right", "write"), ("colour", "color")])
def test_no_confusable_says_the_keyword_in_another_spelling(keyword: str, homophone: str):
    (words,), (other,) = pronounce([keyword], "en"), pronounce([homophone], "en")
    assert homophone in homophones(keyword, words, "en")
    pairs = [c for c in confusables(keyword, words, "en", seed=1) if len(c) == 2]
    assert len(pairs) > 10
    assert not any(word in (*words, *other) for pair in pairs for word in pair)


def test_words_that_contain_a_short_one_are_found():
    (words,) = pronounce(["up"], "en")
    assert {"cup", "couple"} <= {w.text for w in containing("up", words[0], "en")}
