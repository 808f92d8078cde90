from __future__ import annotations

from earmark_training.data.vocabulary import keywords_in


def test_homophones_count_as_the_keyword():
    assert keywords_in("I want TO write", ("two", "right", "no")) == {"two", "right"}
    assert keywords_in("nothing of the sort", ("no", "two")) == frozenset()
