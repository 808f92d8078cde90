"""JSON of texts that may be no Unicode."""

from __future__ import annotations

import json

import pytest
from earmark_audio.json_text import json_text
from hypothesis import given
from hypothesis import strategies as st


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"u\N{GRINNING FACE}')))
def test_text_stays_as_it_is(text: str) -> None:
    assert json_text({text: [text]}, indent=1) == json.dumps({text: [text]}, indent=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"caf\xe9", r"caf\udce9"),
        (b"\xe9\xe8", r"\udce9\udce8"),
        (b"\\\xe9", r"\\udce9"),
        ("\N{GRINNING FACE}".encode() + b"\xf0\x9f", "\N{GRINNING FACE}" + r"\udcf0\udc9f"),
        (rb"\udce9", r"\udce9"),
    ],
)
def test_bytes_that_are_not_utf8_become_text(name: bytes, expected: str) -> None:
    text = name.decode(errors="surrogateescape")
    assert json.loads(json_text({"a": [text], text: 1})) == {"a": [expected], expected: 1}
