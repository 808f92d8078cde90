"""The options of a stream: what its audio looks like, and which events the caller wants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earmark_client.audio import is_number
from earmark_client.errors import InvalidRequestError
from earmark_client.events import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from earmark_client.audio import AudioFormat, KeywordSetting

DEFAULT_RESUME_WITHIN_S = 60.0
"""How long a broken stream tries to resume."""

MAX_MODELS = 8
"""The most models that one stream may have."""

LONGEST_KEEP_AUDIO_S = 60.0
"""How much audio before and after a keyword a stream keeps at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The arguments of `Client.stream`, which documents them."""

    audio_format: AudioFormat
    model: str = ""
    models: Iterable[str] = ()
    keywords: Iterable[str | KeywordSetting] = ()
    score_interval_s: float | None = None
    progress_interval_s: float | None = None
    resume: Progress | None = None
    resume_within_s: float = DEFAULT_RESUME_WITHIN_S
    gate: bool = False
    request_id: str = ""
    keep_audio_s: float | None = None

    def __post_init__(self) -> None:
        """Raise InvalidRequestError for a time out of range, and for a resume point that is no Progress."""
        if not is_number(self.resume_within_s) or not 0 <= self.resume_within_s < math.inf:
            raise InvalidRequestError(
                "resume_within_s must be a finite number of seconds, at least 0, "
                f"not {self.resume_within_s!r}",
                reason="BAD_CONFIG",
            )
        if self.resume is not None and not isinstance(self.resume, Progress):
            raise InvalidRequestError(
                f"resume must be a Progress, not {type(self.resume).__name__}: give the stream's latest one",
                reason="BAD_RESUME_TOKEN",
            )
        if self.keep_audio_s is not None and not (
            is_number(self.keep_audio_s) and 0 <= self.keep_audio_s <= LONGEST_KEEP_AUDIO_S
        ):
            raise InvalidRequestError(
                f"keep_audio_s must be 0 to {LONGEST_KEEP_AUDIO_S:g} s, not {self.keep_audio_s!r}",
                reason="BAD_CONFIG",
            )
