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

HOMOPHONES = {
    "no": ("know",),
    "right": ("write", "rite", "wright"),
    "backward": ("backwards",),
    "forward": ("forwards", "foreword"),
    "one": ("won",),
    "two": ("to", "too"),
    "four": ("for", "fore"),
}
"""Words that a listener cannot tell from a keyword: a detection there is no false alarm."""


def labels_for(keywords: tuple[str, ...]) -> tuple[str, ...]:
    """Return a model's classes in their order: silence, unknown, then the keywords."""
    return (SILENCE, UNKNOWN, *keywords)


def keywords_in(transcript: str, keywords: tuple[str, ...]) -> frozenset[str]:
    """Return the keywords that `transcript` holds, by their own or a homophone's spelling."""
    words = set(transcript.lower().split())
    return frozenset(k for k in keywords if not words.isdisjoint((k, *HOMOPHONES.get(k, ()))))
