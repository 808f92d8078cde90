"""Opens the sessions of streams and recordings, with the models and keywords that their requests name."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, TypeAlias

from earmark_spotter.resume import split_token

from earmark_server.inference.merged_session import MergedLane, MergedSession
from earmark_server.inference.session import SpottingSession
from earmark_server.rpc.validation import active_keywords, check_keywords, model_names, session_options
from earmark_server.status import CallError, attribute_errors_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_spotter import ActiveKeyword, AudioFormat, ModelMetadata, SpotterModel

    from earmark_server.inference.model_registry import ModelRegistry
    from earmark_server.rpc.requests import OpenStream, SpotCall

StreamSession: TypeAlias = SpottingSession | MergedSession


async def open_stream(
    models: ModelRegistry,
    audio_format: AudioFormat,
    request: OpenStream,
    resume_keys: Sequence[bytes],
    max_keywords: int,
) -> StreamSession:
    """Start a stream with the current models, or resume one with the models that it began on."""
    names = model_names(request.model, request.models, "config.models")
    options = session_options(request)
    resume = options.resume
    tokens = [] if resume is None else split_token(resume.token, len(names))
    if resume is None:
        chosen = _current(models, names, request.models, "config.")
        check_keywords(_metadata(chosen), request.keywords, "config.keywords", max_keywords)
    kind = SpottingSession if len(names) == 1 else MergedLane
    lanes: list[SpottingSession] = []

    def open_lane(model: SpotterModel) -> SpottingSession:
        active = active_keywords(
            model.metadata, request.keywords, "config.keywords", has_several_models=len(names) > 1
        )
        with attribute_errors_to("config.resume"):
            return kind(
                model,
                audio_format,
                active,
                resume=None if resume is None else dataclasses.replace(resume, token=tokens[len(lanes)]),
                resume_keys=resume_keys,
                score_interval_ns=options.score_interval_ns,
                progress_interval_ns=options.progress_interval_ns,
                first=lanes[0] if lanes else None,
            )

    for i, name in enumerate(names):
        try:
            lanes.append(open_lane(models.get(name, _field("config.", request.models, i))))
        except CallError:
            # The model that was replaced may have other keywords, or another name.
            if resume is None or not await _resume_replaced(models, name, open_lane, lanes):
                raise
    _check_distinct(_metadata([lane.model for lane in lanes]), "config.models")
    return _session(lanes)


def choose_models(
    models: ModelRegistry, request: SpotCall, max_keywords: int
) -> list[tuple[SpotterModel, Sequence[ActiveKeyword]]]:
    """Return the models of a recording, with the keywords to detect."""
    names = model_names(request.model, request.models, "models")
    chosen = _current(models, names, request.models, "")
    check_keywords(_metadata(chosen), request.keywords, "keywords", max_keywords)
    several = len(chosen) > 1
    return [
        (
            model,
            active_keywords(model.metadata, request.keywords, "keywords", has_several_models=several),
        )
        for model in chosen
    ]


def open_recording(
    chosen: Sequence[tuple[SpotterModel, Sequence[ActiveKeyword]]], audio_format: AudioFormat
) -> StreamSession:
    """Start a recording."""
    kind = SpottingSession if len(chosen) == 1 else MergedLane
    lanes: list[SpottingSession] = []
    for model, active in chosen:
        lanes.append(kind(model, audio_format, active, first=lanes[0] if lanes else None))
    return _session(lanes)


def _session(lanes: Sequence[SpottingSession]) -> StreamSession:
    merged = [lane for lane in lanes if isinstance(lane, MergedLane)]
    return MergedSession(merged) if merged else lanes[0]


async def _resume_replaced(
    models: ModelRegistry,
    name: str,
    open_lane: Callable[[SpotterModel], SpottingSession],
    lanes: list[SpottingSession],
) -> bool:
    """Open a lane with the replaced model that the stream began on; return whether there is one."""
    async for model in models.replaced(name):
        with contextlib.suppress(CallError):
            lanes.append(open_lane(model))
            return True
    return False


def _current(
    models: ModelRegistry, names: Sequence[str], requested: Sequence[str], prefix: str
) -> list[SpotterModel]:
    chosen = [models.get(name, _field(prefix, requested, i)) for i, name in enumerate(names)]
    _check_distinct(_metadata(chosen), f"{prefix}models")
    return chosen


def _field(prefix: str, requested: Sequence[str], i: int) -> str:
    """Return the field of a request with the name of its model number `i`."""
    return f"{prefix}models[{i}]" if requested else f"{prefix}model"


def _check_distinct(metas: Sequence[ModelMetadata], field: str) -> None:
    names = [meta.name for meta in metas]
    for i, name in enumerate(names):
        if name in names[:i]:
            message = f"The request names the model {name} twice. Name each model once."
            raise CallError("BAD_CONFIG", message, field=f"{field}[{i}]")


def _metadata(models: Sequence[SpotterModel]) -> list[ModelMetadata]:
    return [model.metadata for model in models]
