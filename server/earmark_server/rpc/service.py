"""The RPCs of earmark.v1.KeywordSpottingService."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from earmark_audio import Notice
from earmark_spotter import AudioFormat, Detection, Encoding, resolve_settings
from earmark_spotter.sample_time import NANOSECONDS

from earmark_server.credentials.resume_keys import read_resume_keys
from earmark_server.inference.events import ClipScores, Failed, Finished
from earmark_server.inference.session import ClassificationSession
from earmark_server.rpc import recordings, responses
from earmark_server.rpc.audio_forwarder import AudioForwarder
from earmark_server.rpc.call import CallKind
from earmark_server.rpc.decoder import FileDecoder
from earmark_server.rpc.detection_log import DetectionLog
from earmark_server.rpc.idle_timeout import end_when_idle
from earmark_server.rpc.request_reader import RequestReader
from earmark_server.rpc.requests import OpenStream
from earmark_server.rpc.sessions import choose_models, open_recording, open_stream
from earmark_server.rpc.turns import Turns
from earmark_server.rpc.uncancelled import uncancelled
from earmark_server.status import CallError, attribute_errors_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from earmark_server.inference.engine import Engine
    from earmark_server.inference.events import Event
    from earmark_server.inference.model_registry import ModelRegistry
    from earmark_server.inference.pending_audio import Input
    from earmark_server.inference.session import Session
    from earmark_server.inference.stream_handle import StreamHandle
    from earmark_server.rpc.admission import Admission
    from earmark_server.rpc.call import Call
    from earmark_server.rpc.idle_timeout import Activity
    from earmark_server.rpc.lookup_requests import LookupRequests
    from earmark_server.rpc.requests import (
        ClassifyCall,
        GetModelCall,
        ListModelsCall,
        SpotCall,
        StreamRequest,
    )
    from earmark_server.settings import Settings

Request = TypeVar("Request")
Context: TypeAlias = "grpc.aio.ServicerContext[Request | CallError, bytes]"
"""gRPC's context of a call. It reads requests, or errors in place of unusable ones, and writes bytes."""

# Recordings that are in memory, each up to --max-message-bytes, while further calls wait to send theirs.
_MAX_RECORDINGS = 16
_MAX_RECORDINGS_PER_CLIENT = 8

# Recordings that are in memory in decoded form at the same time. They may be far longer than their messages.
_MAX_DECODED_RECORDINGS = 3
_MAX_DECODED_RECORDINGS_PER_CLIENT = 2


@dataclass(frozen=True, slots=True)
class Loaded:
    """The parts that calls need, and that exist once the server has started."""

    models: ModelRegistry
    engine: Engine


class KeywordSpottingService:
    """Implements the RPCs. Calls that arrive before `loaded` is set wait for it."""

    def __init__(self, settings: Settings, admission: Admission, lookups: LookupRequests) -> None:
        self.loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self.detections = DetectionLog()
        self._settings = settings
        self._admission = admission
        self._lookups = lookups
        self._resume_keys = read_resume_keys(settings.resume_key_file)
        self._max_pending_ns = round(settings.max_pending_s * NANOSECONDS)
        self._turns = Turns(_MAX_RECORDINGS, _MAX_RECORDINGS_PER_CLIENT, settings.idle_timeout_s)
        self._decoder = FileDecoder(settings)
        self._decoding = Turns(
            _MAX_DECODED_RECORDINGS, _MAX_DECODED_RECORDINGS_PER_CLIENT, settings.idle_timeout_s
        )

    def close(self) -> None:
        """Free what calls have left; to be called when no call is left."""
        self._decoder.close()

    async def streaming_spot(self, _: object, context: Context[StreamRequest]) -> None:
        """Detect keywords in a live stream: this task writes events, and another one reads audio."""
        async with self._admission.admitted(context, "StreamingSpot", CallKind.STREAM) as call:
            request = await self._first_request(context, call)
            if isinstance(request, OpenStream):
                call.weight = max(1, len(request.models))
            self._admission.count_stream(call)
            with self._end_when_idle(call) as activity:
                reader: RequestReader[StreamRequest] = RequestReader(context, activity)
                if not isinstance(request, OpenStream):
                    raise CallError(
                        "CONFIG_EXPECTED_FIRST", "The first message of a stream must be its config."
                    )
                call.set_request_id(request.request_id, "config.request_id")
                loaded = await self._wait_until_loaded()
                audio_format = request.audio_format.raw_format("config.audio_format")
                session = await open_stream(
                    loaded.models, audio_format, request, self._resume_keys, self._settings.max_keywords
                )
                call.model = ", ".join(responses.metadata_by_name(session))
                # A drain may have started while the call waited.
                self._admission.raise_if_draining()
                with loaded.engine.open_stream(session, self._max_pending_ns, call.quota_key) as stream:
                    call.stream = stream
                    if call.span is not None:
                        await context.send_initial_metadata(call.span.metadata)
                    started = responses.stream_started(session.lanes, call.request_id)
                    await _write(context, activity, started)
                    forwarder = AudioForwarder(
                        reader, stream, audio_format, self._settings, start_ns=session.start_ns
                    )
                    activity.on_idle = forwarder.end_with
                    try:
                        with forwarder.running():
                            await self._write_events(context, activity, call, stream, forwarder)
                    finally:
                        call.audio_ns = stream.sent_ns

    async def spot(self, _: object, context: Context[SpotCall]) -> bytes:
        """Detect all keywords in a recording."""
        async with self._admission.admitted(context, "Spot", CallKind.RECORDING) as call:
            async with self._turns.turn(call.quota_key):
                request = await self._only_request(context, call)
                models = await self._begin_recording(call, request)
                chosen = choose_models(models, request, self._settings.max_keywords)
                call.model = ", ".join(model.metadata.name for model, _ in chosen)
                async with self._decoded(request, call) as (audio_format, audio, notices):
                    session = open_recording(chosen, audio_format)
                    events = await self._process(call, session, audio)
            metas = responses.metadata_by_name(session)
            detections = [event for event in events if isinstance(event, Detection)]
            for detection in detections:
                self.detections.record(call, detection, metas[detection.model].sample_rate_hz)
            notices += tuple(event for event in events if isinstance(event, Notice))
            return responses.spot_response(metas, detections, call.audio_ns or 0, notices)

    async def classify(self, _: object, context: Context[ClassifyCall]) -> bytes:
        """Score every class on a clip."""
        async with self._admission.admitted(context, "Classify", CallKind.RECORDING) as call:
            async with self._turns.turn(call.quota_key):
                request = await self._only_request(context, call)
                models = await self._begin_recording(call, request)
                model = models.get(request.model, "model")
                call.model = model.metadata.name
                active = resolve_settings(model.metadata)
                async with self._decoded(request, call) as (audio_format, audio, notices):
                    session = ClassificationSession(model, audio_format, active)
                    events = await self._process(call, session, audio)
            (clip,) = [event for event in events if isinstance(event, ClipScores)]
            notices += tuple(event for event in events if isinstance(event, Notice))
            return responses.classify_response(model, clip, call.elapsed_ns, notices)

    async def list_models(self, _: object, context: Context[ListModelsCall]) -> bytes:
        """Describe all models."""
        async with self._admission.admitted(context, "ListModels", CallKind.LOOKUP) as call:
            await self._lookups.only(context, call)
            loaded = await self._wait_until_loaded()
            return responses.list_models_response(loaded.models.current)

    async def get_model(self, _: object, context: Context[GetModelCall]) -> bytes:
        """Describe one model."""
        async with self._admission.admitted(context, "GetModel", CallKind.LOOKUP) as call:
            request = await self._lookups.only(context, call)
            loaded = await self._wait_until_loaded()
            model = loaded.models.get(request.model, "model")
            return responses.get_model_response(model, is_default=model is loaded.models.current[0])

    async def _first_request(self, context: Context[StreamRequest], call: Call) -> StreamRequest | None:
        """Read the first request of a stream."""
        settings = self._settings
        timeout_s = min(settings.config_timeout_s, settings.idle_timeout_s)
        with end_when_idle(call, timeout_s, settings.slow_reader_timeout_s) as activity:
            reader: RequestReader[StreamRequest] = RequestReader(context, activity)
            return await reader.first()

    async def _only_request(self, context: Context[Request], call: Call) -> Request:
        """Read the request of a unary call."""
        with self._end_when_idle(call) as activity:
            reader: RequestReader[Request] = RequestReader(context, activity)
            request = await reader.first()
        if request is None:
            raise CallError("BAD_CONFIG", f"{call.rpc} needs one message, but the client sent none.")
        return request

    async def _wait_until_loaded(self) -> Loaded:
        return await asyncio.shield(self.loaded)

    def _end_when_idle(self, call: Call) -> contextlib.AbstractContextManager[Activity]:
        settings = self._settings
        return end_when_idle(call, settings.idle_timeout_s, settings.slow_reader_timeout_s)

    # Streams.

    async def _write_events(
        self,
        context: Context[StreamRequest],
        activity: Activity,
        call: Call,
        stream: StreamHandle,
        forwarder: AudioForwarder,
    ) -> None:
        metas = responses.metadata_by_name(stream.session)
        ended = False
        while not ended:
            for event in await stream.events():
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Detection):
                    self.detections.record(call, event, metas[event.model].sample_rate_hz)
                ended = isinstance(event, Finished)
                if ended and forwarder.error is not None:
                    raise forwarder.error
                assert not isinstance(event, ClipScores)  # only of a ClassificationSession
                response = responses.stream_event(event, metas, call.detection_count)
                await _write(context, activity, response)

    # Recordings.

    async def _begin_recording(self, call: Call, request: SpotCall | ClassifyCall) -> ModelRegistry:
        """Set the call's request id; return the models of the server."""
        call.set_request_id(request.request_id, "request_id")
        return (await self._wait_until_loaded()).models

    @contextlib.asynccontextmanager
    async def _decoded(
        self, request: SpotCall | ClassifyCall, call: Call
    ) -> AsyncIterator[tuple[AudioFormat, Input, tuple[Notice, ...]]]:
        """Yield the format and audio of a request; only a few blocks at a time may have a decoded file."""
        max_seconds, stated = self._settings.max_recording_s, request.audio_format
        if stated.is_raw:
            audio_format = stated.raw_format("audio_format")
            with attribute_errors_to("audio"):
                recordings.check_raw(request.audio, audio_format, max_seconds)
            yield audio_format, request.audio, ()
            return
        container = stated.container("audio_format")
        async with self._decoding.turn(call.quota_key):
            with attribute_errors_to("audio"):
                decoded = await recordings.decode(
                    self._decoder,
                    call.quota_key,
                    request.audio,
                    container,
                    sample_rate_hz=stated.sample_rate_hz,
                    channel_count=stated.channel_count,
                    channel=stated.channel,
                )
            yield AudioFormat(Encoding.FLOAT32, decoded.sample_rate_hz), decoded.samples, decoded.notices

    async def _process(self, call: Call, session: Session, audio: Input) -> list[Event]:
        """Run a recording through the engine, and return its events."""
        loaded = await self._wait_until_loaded()
        events: list[Event] = []
        with loaded.engine.open_stream(session, self._max_pending_ns, call.quota_key) as stream:
            call.stream = stream
            stream.send(audio)
            stream.end()
            while call.audio_ns is None:
                for event in await stream.events():
                    if isinstance(event, Failed):
                        raise event.error
                    if isinstance(event, Finished | ClipScores):
                        call.audio_ns = event.audio_ns
                    events.append(event)
        return events


async def _write(context: Context[StreamRequest], activity: Activity, response: bytes) -> None:
    activity.writing_since = activity.now()
    await uncancelled(context.write(response))
    activity.writing_since = None
