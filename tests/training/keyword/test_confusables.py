from __future__ import annotations

from earmark_training.keyword import confusables

COMPUTER = [["k", "@", "m", "p", "j", "'u:", "t", "3"]]  # the phonemes of eSpeak NG


def test_parts_are_beginnings_and_ends_of_the_keyword():
    parts = confusables.parts(COMPUTER)
    assert "[[k|@|m|p|j|'u:]]" in parts  # compu-
    assert "[[j|'u:|t|3]]" in parts  # -uter
    assert "[[k|@|m|p|j|'u:|t|3]]" not in parts


def test_variants_differ_from_the_keyword_and_from_each_other():
    variants = confusables.variants(COMPUTER, 100, seed=1)
    assert len(variants) == len(set(variants)) == 100
    assert "[[k|@|m|p|j|'u:|t|3]]" not in variants
    assert variants == confusables.variants(COMPUTER, 100, seed=1)
    sizes = {len(v.strip("[]").split("|")) for v in variants}
    assert sizes <= set(range(5, 12))


def test_variants_of_a_short_word_have_a_vowel():
    for variant in confusables.variants([["g", "'oU"]], 20, seed=1):
        assert any(map(confusables.is_vowel, variant.strip("[]").split("|")))
        assert variant != "[[g|'oU]]"
