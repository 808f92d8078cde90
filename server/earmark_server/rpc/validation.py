"""Validates requests against a model and the server's limits; each error names the field that causes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_spotter import KeywordSetting, ResumePoint, resolve_settings
from earmark_spotter.sample_time import NANOSECONDS

from earmark_server.inference.session import SpottingSession
from earmark_server.rpc.requests import MAX_DURATION_NS
from earmark_server.status import CallError, attribute_errors_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import ActiveKeyword, AudioFormat, ModelMetadata, SpotterModel

    from earmark_server.rpc.requests import KeywordField, OpenStream, Silence

_MAX_REFRACTORY_NS = 60 * NANOSECONDS
_MAX_SILENCE_NS = 3600 * NANOSECONDS
_MIN_PROGRESS_INTERVAL_NS = NANOSECONDS // 10
_DEFAULT_PROGRESS_INTERVAL_NS = NANOSECONDS


def active_keywords(
    meta: ModelMetadata, keywords: Sequence[KeywordField], field: str, limit: int
) -> tuple[ActiveKeyword, ...]:
    """Return the keywords to detect and their settings; `field`: the name of `keywords` in the request.

    Raises CallError for more than `limit` keywords, and for a keyword or setting that the model rejects.
    """
    if len(keywords) > limit:
        message = f"A request may name at most {limit} keywords on this server. Name fewer."
        raise CallError("BAD_CONFIG", message, field=field)
    settings: list[KeywordSetting] = []
    for i, each in enumerate(keywords):
        place = f"{field}[{i}]"
        refractory_ms = None
        if each.refractory is not None:
            refractory_ns = each.refractory.nanoseconds(
                f"{place}.refractory", 0, _MAX_REFRACTORY_NS, "BAD_THRESHOLD"
            )
            refractory_ms = refractory_ns / 1e6
        settings.append(KeywordSetting(each.keyword, each.threshold, refractory_ms))
        # Resolving one more keyword each time shows which of them is at fault.
        with attribute_errors_to(place):
            resolve_settings(meta, settings)
    return resolve_settings(meta, settings)


def spotting_session(
    model: SpotterModel,
    audio_format: AudioFormat,
    active: Sequence[ActiveKeyword],
    request: OpenStream,
    resume_keys: Sequence[bytes] = (),
) -> SpottingSession:
    """Return the session of a stream, which starts or resumes as its first request says.

    Raises CallError for an invalid interval, or a resume point that does not fit the model and the keys.
    """
    score_ns, progress_ns, resume = None, _DEFAULT_PROGRESS_INTERVAL_NS, None
    if request.score_interval is not None:
        score_ns = request.score_interval.nanoseconds(
            "config.score_interval", 1, MAX_DURATION_NS, "BAD_CONFIG"
        )
    if request.progress_interval is not None:
        progress_ns = request.progress_interval.nanoseconds(
            "config.progress_interval", _MIN_PROGRESS_INTERVAL_NS, MAX_DURATION_NS, "BAD_CONFIG"
        )
    if request.resume is not None:
        start_ns = request.resume.start_offset.nanoseconds(
            "config.resume.start_offset", 0, MAX_DURATION_NS, "BAD_RESUME_TOKEN"
        )
        resume = ResumePoint(start_ns, request.resume.resume_token)
    with attribute_errors_to("config.resume"):
        return SpottingSession(
            model,
            audio_format,
            active,
            resume=resume,
            resume_keys=resume_keys,
            score_interval_ns=score_ns,
            progress_interval_ns=progress_ns,
        )


def silence_ns(request: Silence) -> int:
    """Return the length of a pause in nanoseconds; CallError if it is too long."""
    return request.duration.nanoseconds("silence", 0, _MAX_SILENCE_NS, "BAD_AUDIO")
