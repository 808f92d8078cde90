"""The options of a stream: what its audio looks like, and which events the caller wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from earmark_client.audio import AudioFormat, KeywordSetting
    from earmark_client.events import Progress

DEFAULT_RESUME_WITHIN_S = 60.0
"""How long a broken stream tries to resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The arguments of `Client.stream`, which documents them."""

    audio_format: AudioFormat
    model: str = ""
    keywords: Iterable[str | KeywordSetting] = ()
    score_interval_s: float | None = None
    progress_interval_s: float | None = None
    resume: Progress | None = None
    resume_within_s: float = DEFAULT_RESUME_WITHIN_S
    gate: bool = False
    request_id: str = ""
