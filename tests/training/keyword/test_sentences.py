from __future__ import annotations

from earmark_training.keyword.negatives import contains_keyword
from earmark_training.keyword.sentences import lines


def test_the_same_seed_returns_the_same_lines():
    text = lines(300, seed=2)
    assert text == lines(300, seed=2)
    assert len(set(text)) > 200


def test_lines_may_contain_a_keyword():
    assert any(contains_keyword(line, "mirror") for line in lines(300, seed=2))
