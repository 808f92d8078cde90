"""The words that the default model knows, and the words that sound like them."""

from __future__ import annotations

SILENCE = "_silence_"
"""The class of audio in which nobody speaks."""

UNKNOWN = "_unknown_"
"""The class of speech that is none of the keywords."""

DEFAULT_KEYWORDS = (
    "yes", "no", "up", "down", "left", "right", "stop", "go", "backward", "forward",
    "zero", "one", "two", "three", "four", "five",
)  # fmt: skip

_ALSO_HEARD = {
    "no": ("know",),
    "right": ("write", "rite", "wright"),
    "backward": ("backwards",),
    "forward": ("forwards", "foreword"),
    "one": ("won",),
    "two": ("to", "too"),
    "four": ("for", "fore"),
}
"""What else is heard as a keyword, by spelling: its homophones, and `backwards`, which says all of it."""


def labels_for(keywords: tuple[str, ...]) -> tuple[str, ...]:
    """Return a model's classes in their order: silence, unknown, then the keywords."""
    return (SILENCE, UNKNOWN, *keywords)


def heard_as(keyword: str) -> frozenset[str]:
    """Return the words where a detection of the keyword is no false alarm: it, and what is heard as it."""
    return frozenset((keyword, *_ALSO_HEARD.get(keyword, ())))


def keywords_in(transcript: str, keywords: tuple[str, ...]) -> frozenset[str]:
    """Return the keywords that are heard in what `transcript` says."""
    words = set(transcript.lower().split())
    return frozenset(k for k in keywords if not words.isdisjoint(heard_as(k)))
