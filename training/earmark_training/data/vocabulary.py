"""The keywords of the default model, and their homophones."""

from __future__ import annotations

SILENCE = "_silence_"
"""The class of audio without speech."""

UNKNOWN = "_unknown_"
"""The class of speech that is not a keyword."""

DEFAULT_KEYWORDS = (
    "yes", "no", "up", "down", "left", "right", "stop", "go", "backward", "forward",
    "zero", "one", "two", "three", "four", "five", "on", "off",
)  # fmt: skip

_HOMOPHONES = {
    "no": ("know",),
    "right": ("write", "rite", "wright"),
    "backward": ("backwards",),
    "forward": ("forwards", "foreword"),
    "one": ("won",),
    "two": ("to", "too"),
    "four": ("for", "fore"),
}
"""Words that sound like a keyword, or contain all of it, as `backwards` does."""


def labels_for(keywords: tuple[str, ...]) -> tuple[str, ...]:
    """Return a model's classes in order: silence, unknown, then the keywords."""
    return (SILENCE, UNKNOWN, *keywords)


def accepted_words(keyword: str) -> frozenset[str]:
    """Return the words for which a detection of the keyword is correct: the keyword and its homophones."""
    return frozenset((keyword, *_HOMOPHONES.get(keyword, ())))


def keywords_in(transcript: str, keywords: tuple[str, ...]) -> frozenset[str]:
    """Return the keywords that the transcript contains, as themselves or as a homophone."""
    words = set(transcript.lower().split())
    return frozenset(k for k in keywords if not words.isdisjoint(accepted_words(k)))
