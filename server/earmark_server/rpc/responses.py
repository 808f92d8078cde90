"""Responses of earmark.v1: the only module that knows their generated classes. Each function serializes one.

A response is serialized inside its call, not by gRPC afterwards, so that an error there ends the call with
INTERNAL like any other error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_audio import Notice
from earmark_spotter import Detection, offset_ns
from earmark_spotter.sample_time import NANOSECONDS
from google.protobuf.duration_pb2 import Duration

from earmark_server.inference.events import Finished, Progress, Scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from earmark_spotter import ModelMetadata, SpotterModel

    from earmark_server.inference.events import ClipScores
    from earmark_server.inference.session import Session, SpottingSession


def metadata_by_name(session: Session) -> dict[str, ModelMetadata]:
    """Return the metadata of a call's models."""
    return {lane.model.metadata.name: lane.model.metadata for lane in session.lanes}


def stream_started(lanes: Sequence[SpottingSession], request_id: str) -> bytes:
    """Return the first event of a stream: the models and the keyword settings that are in force."""
    metas = [lane.model.metadata for lane in lanes]
    started = rpcs.StreamStarted(
        model=metas[0].name,
        model_version=metas[0].version,
        keywords=[
            messages.ActiveKeyword(
                keyword=each.keyword,
                threshold=each.threshold,
                refractory=_milliseconds(each.refractory_ms),
                model=lane.model.metadata.name,
            )
            for lane in lanes
            for each in lane.active
        ],
        step_length=_milliseconds(max(meta.step_ms for meta in metas)),
        receptive_field=_milliseconds(max(meta.receptive_field_ms for meta in metas)),
        request_id=request_id,
        models=_active_models(metas),
    )
    return rpcs.StreamingSpotResponse(started=started).SerializeToString()


def stream_event(
    event: Detection | Notice | Scores | Progress | Finished,
    metas: Mapping[str, ModelMetadata],
    detection_count: int,
) -> bytes:
    """Return an event of a stream; `metas`: of its models, by name.

    The last event, Finished, states `detection_count`.
    """
    match event:
        case Detection():
            response = rpcs.StreamingSpotResponse(detection=_detection(event, metas[event.model]))
        case Notice():
            response = rpcs.StreamingSpotResponse(warning=_warning(event))
        case Scores():
            scores = _class_scores(metas[event.model], event.values.tolist())
            frame = messages.ScoreFrame(offset=_duration(event.offset_ns), scores=scores, model=event.model)
            response = rpcs.StreamingSpotResponse(scores=frame)
        case Progress():
            progress = rpcs.Progress(
                received_offset=_duration(event.progress.received_offset_ns),
                decided_offset=_duration(event.progress.decided_offset_ns),
                replay_offset=_duration(event.progress.replay_offset_ns),
                resume_token=event.progress.resume_token,
                draining=event.draining,
            )
            response = rpcs.StreamingSpotResponse(progress=progress)
        case Finished():
            ended = rpcs.StreamEnded(
                audio_duration=_duration(event.audio_ns), detection_count=detection_count
            )
            response = rpcs.StreamingSpotResponse(ended=ended)
    return response.SerializeToString()


def spot_response(
    metas: Mapping[str, ModelMetadata],
    detections: Sequence[Detection],
    audio_ns: int,
    notices: Sequence[Notice] = (),
) -> bytes:
    """Return the detections in a recording, which is `audio_ns` long; `metas`: of its models, by name."""
    first = next(iter(metas.values()))
    return rpcs.SpotResponse(
        detections=[_detection(each, metas[each.model]) for each in detections],
        audio_duration=_duration(audio_ns),
        model=first.name,
        model_version=first.version,
        warnings=_warnings(notices),
        models=_active_models(metas.values()),
    ).SerializeToString()


def classify_response(
    model: SpotterModel, clip: ClipScores, elapsed_ns: int, notices: Sequence[Notice] = ()
) -> bytes:
    """Return the scores of a clip, the highest first; `elapsed_ns`: how long the call has taken."""
    meta = model.metadata
    ranked = sorted(zip(meta.labels, clip.values.tolist(), strict=True), key=lambda each: -each[1])
    return rpcs.ClassifyResponse(
        scores=[messages.ClassScore(label=label, score=score) for label, score in ranked],
        audio_duration=_duration(clip.audio_ns),
        processing_duration=_duration(elapsed_ns),
        model=meta.name,
        model_version=meta.version,
        warnings=_warnings(notices),
    ).SerializeToString()


def list_models_response(models: Sequence[SpotterModel]) -> bytes:
    """Return descriptions of models; the first one is the default model."""
    return rpcs.ListModelsResponse(
        models=[_model(each, is_default=each is models[0]) for each in models]
    ).SerializeToString()


def get_model_response(model: SpotterModel, *, is_default: bool) -> bytes:
    """Return the description of a model."""
    return rpcs.GetModelResponse(model=_model(model, is_default=is_default)).SerializeToString()


def _model(model: SpotterModel, *, is_default: bool) -> messages.Model:
    meta = model.metadata
    return messages.Model(
        name=meta.name,
        version=meta.version,
        keywords=[
            messages.ModelKeyword(
                keyword=name, threshold=info.threshold, refractory=_milliseconds(info.refractory_ms)
            )
            for name, info in meta.keywords.items()
        ],
        labels=meta.labels,
        sample_rate_hertz=meta.sample_rate_hz,
        step_length=_milliseconds(meta.step_ms),
        receptive_field=_milliseconds(meta.receptive_field_ms),
        metrics=[
            messages.ModelMetric(name=each.name, value=each.value, description=each.description)
            for each in meta.metrics
        ],
        training_sources=[
            messages.TrainingSource(name=each.name, license=each.license, attribution=each.attribution)
            for each in meta.training.sources
        ],
        training_commit=meta.training.commit,
        sha256=model.sha256,
        default=is_default,
        verified=meta.verifier is not None,
    )


def _active_models(metas: Iterable[ModelMetadata]) -> list[messages.ActiveModel]:
    return [
        messages.ActiveModel(
            name=meta.name,
            version=meta.version,
            step_length=_milliseconds(meta.step_ms),
            receptive_field=_milliseconds(meta.receptive_field_ms),
        )
        for meta in metas
    ]


def _detection(detection: Detection, meta: ModelMetadata) -> messages.KeywordDetection:
    rate_hz = meta.sample_rate_hz
    return messages.KeywordDetection(
        keyword=detection.keyword,
        confidence=detection.confidence,
        start_offset=_duration(offset_ns(detection.start_sample, rate_hz)),
        end_offset=_duration(offset_ns(detection.end_sample, rate_hz)),
        detection_id=detection.id,
        level_dbfs=detection.level_dbfs,
        snr_db=detection.snr_db,
        model=detection.model,
    )


def _class_scores(meta: ModelMetadata, values: Sequence[float]) -> list[messages.ClassScore]:
    return [
        messages.ClassScore(label=label, score=score)
        for label, score in zip(meta.labels, values, strict=True)
    ]


def _warnings(notices: Sequence[Notice]) -> list[messages.Warning]:
    return [_warning(notice) for notice in notices]


def _warning(notice: Notice) -> messages.Warning:
    return messages.Warning(reason=notice.reason, message=notice.message)


def _duration(nanoseconds: int) -> Duration:
    seconds, nanos = divmod(nanoseconds, NANOSECONDS)
    return Duration(seconds=seconds, nanos=nanos)


def _milliseconds(milliseconds: float) -> Duration:
    return _duration(round(milliseconds * 1e6))
