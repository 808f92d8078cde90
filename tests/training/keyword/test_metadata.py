from __future__ import annotations

import pytest
from earmark_spotter.metadata import NAME_RULE
from earmark_training.keyword.metadata import default_name


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        (["computer"], "computer"),
        (["hey computer", "jarvis"], "hey-computer-jarvis"),
        (["don't"], "don-t"),
        (["U.S.A."], "U.S.A"),
        (["café"], "cafe-"),
        (["hey да"], "hey-"),
        (["да"], "keyword-"),
    ],
)
def test_a_model_is_named_after_its_keywords(keywords: list[str], expected: str):
    name = default_name(keywords)
    if expected.endswith("-"):
        assert name[: len(expected)] == expected
        assert len(name) == len(expected) + 8
    else:
        assert name == expected


def test_models_of_different_keywords_have_different_names():
    keywords = ["да", "нет", "नमस्ते", "你好", "hey да", "hey нет", "schon", "schön", "c", "c++", "c#"]
    long = ["a" * 64, "a" * 63]
    names = [default_name([k]) for k in keywords] + [default_name([*long, k]) for k in ("one", "two")]
    assert len(set(names)) == len(names)
    assert all(NAME_RULE.pattern.fullmatch(name) for name in names)
