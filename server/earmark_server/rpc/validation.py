"""Validates requests against a model and the server's limits; each error names the field that causes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from earmark_spotter import KeywordSetting, ResumePoint, resolve_settings
from earmark_spotter.sample_time import NANOSECONDS

from earmark_server.rpc.requests import MAX_DURATION_NS, MAX_MODELS
from earmark_server.status import CallError, attribute_errors_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import ActiveKeyword, ModelMetadata

    from earmark_server.rpc.requests import KeywordField, OpenStream, Silence

_MAX_REFRACTORY_NS = 60 * NANOSECONDS
_MAX_SILENCE_NS = 3600 * NANOSECONDS
_MIN_PROGRESS_INTERVAL_NS = NANOSECONDS // 10
_DEFAULT_PROGRESS_INTERVAL_NS = NANOSECONDS


def model_names(model: str, models: Sequence[str], field: str) -> Sequence[str]:
    """Return the names of a request's models; `field`: the name of `models` in the request.

    Raises CallError for too many of them, and for another one in the field `model`.
    """
    if not models:
        return (model,)
    if len(models) > MAX_MODELS:
        message = f"A request may name at most {MAX_MODELS} models. Name fewer."
        raise CallError("BAD_CONFIG", message, field=field)
    if model and tuple(models) != (model,):
        message = f"The request has the model {model[:100]!a} and other `models`. Set only one of the fields."
        raise CallError("BAD_CONFIG", message, field=field)
    return models


def check_keywords(
    metas: Sequence[ModelMetadata], keywords: Sequence[KeywordField], field: str, limit: int
) -> None:
    """Check the keywords of a request against all of its models; `field`: as for `active_keywords`.

    Raises CallError for more than `limit` keywords, and for one that none of the models has.
    """
    if len(keywords) > limit:
        message = f"A request may name at most {limit} keywords on this server. Name fewer."
        raise CallError("BAD_CONFIG", message, field=field)
    names = [meta.name for meta in metas]
    for i, each in enumerate(keywords):
        if each.model and each.model not in names:
            raise CallError(
                "UNKNOWN_KEYWORD",
                f"The keyword {each.keyword[:100]!a} is requested of the model {each.model[:100]!a}, which "
                f"is not among the models of the request: {', '.join(names)}.",
                field=f"{field}[{i}].model",
            )
        candidates = [meta for meta in metas if each.model in ("", meta.name)]
        if len(metas) > 1 and not any(each.keyword in meta.keywords for meta in candidates):
            known = "; ".join(f"{meta.name}: {', '.join(meta.keyword_names)}" for meta in candidates)
            raise CallError(
                "UNKNOWN_KEYWORD",
                f"The keyword {each.keyword[:100]!a} is not among the keywords of {known}.",
                field=f"{field}[{i}]",
            )


def active_keywords(
    meta: ModelMetadata, keywords: Sequence[KeywordField], field: str, *, has_several_models: bool = False
) -> tuple[ActiveKeyword, ...]:
    """Return the keywords of one model to detect, with their settings; none in the request means all.

    `field`: the name of `keywords` in the request. `has_several_models`: whether keywords may be those of
    another model of the request. Raises CallError for a keyword or setting that the model rejects, and if
    none of the keywords is the model's.
    """
    settings: list[KeywordSetting] = []
    for i, each in enumerate(keywords):
        if each.model not in ("", meta.name):
            continue
        if has_several_models and not each.model and each.keyword not in meta.keywords:
            continue
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
    if keywords and not settings:
        raise CallError(
            "UNKNOWN_KEYWORD",
            f"The request names no keyword of the model {meta.name}. Name one of its keywords "
            f"({', '.join(meta.keyword_names)}), or omit the model.",
            field=field,
        )
    return resolve_settings(meta, settings)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """The settings of a stream besides its models and keywords."""

    score_interval_ns: int | None
    progress_interval_ns: int
    resume: ResumePoint | None


def session_options(request: OpenStream) -> SessionOptions:
    """Return the settings of a stream; CallError for one that is out of range."""
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
    return SessionOptions(score_ns, progress_ns, resume)


def silence_ns(request: Silence) -> int:
    """Return the length of a pause in nanoseconds; CallError if it is too long."""
    return request.duration.nanoseconds("silence", 0, _MAX_SILENCE_NS, "BAD_AUDIO")
