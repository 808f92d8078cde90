from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from earmark_spotter import ModelError
from earmark_spotter.metadata import parse_metadata
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_model


def place(document: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path; `...` deletes it."""
    *parents, last = path.split(".")
    node: Any = document
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    key = int(last) if isinstance(node, list) else last
    if value is ...:
        del node[key]
    else:
        node[key] = value


def paths(node: Any, prefix: str = "") -> list[str]:
    if isinstance(node, dict):
        entries = list(node.items())
    elif isinstance(node, list):
        entries = [(str(i), item) for i, item in enumerate(node)]
    else:
        return []
    found = []
    for key, value in entries:
        found += [f"{prefix}{key}", *paths(value, f"{prefix}{key}.")]
    return found


def test_a_valid_document_is_parsed_field_by_field() -> None:
    meta = parse_metadata(json.dumps(tiny_model.metadata()))
    assert (meta.name, meta.version) == ("tiny", "1.0.0")
    assert meta.labels == ("_silence_", "_unknown_", "low", "mid", "high")
    assert meta.keyword_names == ("low", "mid", "high")
    assert meta.keyword_indices == (2, 3, 4)
    assert meta.keywords["low"].threshold == 0.6
    assert meta.keywords["low"].end_lag_ms == 20
    assert (meta.sample_rate_hz, meta.step_samples, meta.frame_samples) == (16_000, 320, 320)
    assert meta.frames_per_step == 1
    assert meta.step_ms == 20
    assert meta.receptive_field_ms == 70
    assert meta.detector.hold_ms == 100
    assert meta.metrics[0].value == 1.0
    assert meta.training.sources[0].license == "CC0-1.0"
    assert meta.training.commit == "0000000"


def test_keywords_have_the_order_of_the_labels() -> None:
    document = tiny_model.metadata()
    document["keywords"] = dict(reversed(document["keywords"].items()))
    assert parse_metadata(json.dumps(document)).keyword_names == ("low", "mid", "high")


def test_keywords_are_read_only() -> None:
    meta = parse_metadata(json.dumps(tiny_model.metadata()))
    with pytest.raises(TypeError):
        meta.keywords["low"] = meta.keywords["mid"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 2),
        ("schema_version", 0),
        ("schema_version", True),
        ("name", ""),
        ("name", "a name"),
        ("name", "x" * 65),
        ("version", 1.0),
        ("version", ""),
        ("labels", []),
        ("labels", "low"),
        ("labels", ["low", "low", "mid", "high"]),
        ("labels.0", ""),
        ("labels.0", " low"),
        ("labels.0", "lo\nw"),
        ("labels.0", None),
        ("keywords", {}),
        ("keywords", []),
        ("keywords.nonsense", {"threshold": 0.5, "refractory_ms": 1, "end_lag_ms": 1, "duration_ms": 1}),
        ("keywords.low", 0.5),
        ("keywords.low.threshold", 0),
        ("keywords.low.threshold", 1),
        ("keywords.low.threshold", -0.1),
        ("keywords.low.threshold", 1.5),
        ("keywords.low.threshold", "0.5"),
        ("keywords.low.threshold", True),
        ("keywords.low.refractory_ms", -1),
        ("keywords.low.refractory_ms", 60_001),
        ("keywords.low.end_lag_ms", -1),
        ("keywords.low.end_lag_ms", 5001),
        ("keywords.low.duration_ms", 0),
        ("keywords.low.duration_ms", 10_001),
        ("sample_rate_hz", 7999),
        ("sample_rate_hz", 96_000),
        ("sample_rate_hz", 16_000.0),
        ("step_samples", 0),
        ("step_samples", 330),
        ("step_samples", 1920),
        ("frame_samples", 0),
        ("frame_samples", -320),
        ("receptive_field_samples", 0),
        ("receptive_field_samples", 160_001),
        ("detector", None),
        ("detector.hold_ms", -1),
        ("detector.hold_ms", 2001),
        ("detector.smoothing_frames", 0),
        ("detector.smoothing_frames", 1001),
        ("detector.smoothing_frames", 1.5),
        ("detector.separation_ms", -1),
        ("detector.separation_ms", 60_001),
        ("metrics", {}),
        ("metrics.0.name", 1),
        ("metrics.0.value", "1"),
        ("metrics.0.value", 10**400),
        ("metrics.0.description", None),
        ("training.sources", "everything"),
        ("training.sources.0.license", 1),
        ("training.commit", 0),
        ("training.commit", "\ud800"),
        ("labels.0", "half \udc00"),
    ],
)
def test_an_invalid_field_is_named(path: str, value: Any) -> None:
    document = tiny_model.metadata()
    place(document, path, value)
    with pytest.raises(ModelError) as caught:
        parse_metadata(json.dumps(document))
    assert f"`{path}`" in str(caught.value)
    assert caught.value.reason == "BAD_MODEL"


@pytest.mark.parametrize(
    ("path", "meaning"),
    [
        ("name", "1 to 64 letters (A to Z), digits, '.', '_' or '-', beginning with a letter or a digit"),
        ("version", "1 to 64 letters (A to Z), digits, '.', '_' or '-', beginning with a letter or a digit"),
        ("labels.0", "1 to 64 printable characters that neither begin nor end with a space"),
    ],
)
def test_an_invalid_name_is_rejected_with_its_rule(path: str, meaning: str) -> None:
    document = tiny_model.metadata()
    place(document, path, " a ")
    with pytest.raises(ModelError) as caught:
        parse_metadata(json.dumps(document))
    assert f"is ' a ', but must be {meaning}." in str(caught.value)


@pytest.mark.parametrize("path", [path for path in paths(tiny_model.METADATA) if not path[-1].isdigit()])
def test_a_missing_field_is_named(path: str) -> None:
    document = tiny_model.metadata()
    place(document, path, ...)
    if path in {f"keywords.{name}" for name in tiny_model.TONES_HZ}:
        assert len(parse_metadata(json.dumps(document)).keywords) == 2  # a label need not be a keyword
        return
    with pytest.raises(ModelError, match=f"`{path}` is missing"):
        parse_metadata(json.dumps(document))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_must_be_finite(number: str) -> None:
    text = json.dumps(tiny_model.metadata()).replace('"value": 1.0', f'"value": {number}')
    assert number in text
    with pytest.raises(ModelError):
        parse_metadata(text)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"earmark"', "[" * 100_000])
def test_an_invalid_document_is_rejected(text: str) -> None:
    with pytest.raises(ModelError):
        parse_metadata(text)


def test_unknown_fields_are_ignored() -> None:
    document = tiny_model.metadata() | {"note": "from a later release"}
    assert parse_metadata(json.dumps(document)).name == "tiny"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(path=st.sampled_from(paths(tiny_model.METADATA)), value=json_values)
def test_any_value_of_any_field_is_parsed_or_rejected(path: str, value: Any) -> None:
    document = tiny_model.metadata()
    place(document, path, value)
    # Any other exception fails the test.
    with contextlib.suppress(ModelError):
        parse_metadata(json.dumps(document))
