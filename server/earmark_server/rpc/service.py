"""The RPCs of earmark.v1.KeywordSpottingService: requests in, work for the engine, answers out."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from earmark_spotter import AudioFormat, Detection, Encoding, resolve_settings
from earmark_spotter.stream import NANOSECONDS

from earmark_server.credentials.resume_keys import read_resume_keys
from earmark_server.inference.events import ClipScores, Failed, Finished
from earmark_server.inference.session import ClassificationSession, SpottingSession
from earmark_server.rpc import recordings, wire
from earmark_server.rpc.call import CallKind
from earmark_server.rpc.detection_log import DetectionLog
from earmark_server.rpc.idle_timeout import ending_when_idle
from earmark_server.rpc.request_reader import Reader
from earmark_server.rpc.uncancelled import left_to_end
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import grpc
    from earmark_spotter import ActiveKeyword, SpotterModel

    from earmark_server.inference.engine import Engine
    from earmark_server.inference.events import Event
    from earmark_server.inference.model_registry import ModelRegistry
    from earmark_server.inference.pending_audio import Input
    from earmark_server.inference.session import Session
    from earmark_server.inference.stream_handle import StreamHandle
    from earmark_server.rpc.admission import Admission
    from earmark_server.rpc.call import Call
    from earmark_server.rpc.idle_timeout import Activity
    from earmark_server.settings import Settings

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Decoded, a recording may be far longer than its message; that many are held decoded at once.
_MAX_DECODED_RECORDINGS = 4


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is there once the server has started."""

    models: ModelRegistry
    engine: Engine


class KeywordSpottingService:
    """Answers the calls. They may come in before `loaded` is set: they wait for it."""

    def __init__(self, settings: Settings, admission: Admission) -> None:
        self.loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self.detections = DetectionLog()
        self._settings = settings
        self._admission = admission
        self._resume_keys = read_resume_keys(settings.resume_key_file)
        self._max_pending_ns = round(settings.max_pending_s * NANOSECONDS)
        self._decoded = asyncio.Semaphore(_MAX_DECODED_RECORDINGS)

    async def streaming_spot(self, _: object, context: Context) -> None:
        """Live audio in, events out: this task writes, another one reads."""
        async with self._admission.admitted(context, "StreamingSpot", CallKind.STREAM) as call:
            self._refuse_if_overloaded()
            await self._stream(context, call)

    async def spot(self, _: object, context: Context) -> Any:
        """Find every keyword in a recording."""
        async with self._admission.admitted(context, "Spot", CallKind.RECORDING) as call:
            request = await self._request(context, call)
            model = await self._begin(call, request)
            active = wire.active_keywords(
                model.metadata, request.keywords, "keywords", self._settings.max_keywords
            )
            async with self._recording(request) as (audio_format, audio):
                events = await self._listen(call, SpottingSession(model, audio_format, active), audio)
            detections = [event for event in events if isinstance(event, Detection)]
            for detection in detections:
                self.detections.record(call, detection, model.metadata.sample_rate_hz)
            return wire.spot_response(model, detections, call.audio_ns or 0)

    async def classify(self, _: object, context: Context) -> Any:
        """Score every class on a clip."""
        async with self._admission.admitted(context, "Classify", CallKind.RECORDING) as call:
            request = await self._request(context, call)
            model = await self._begin(call, request)
            active = resolve_settings(model.metadata)
            async with self._recording(request) as (audio_format, audio):
                events = await self._listen(call, ClassificationSession(model, audio_format, active), audio)
            (clip,) = [event for event in events if isinstance(event, ClipScores)]
            return wire.classify_response(model, clip, call.elapsed_ns)

    async def list_models(self, _: object, context: Context) -> Any:
        """Tell what is loaded."""
        async with self._admission.admitted(context, "ListModels", CallKind.LOOKUP) as call:
            await self._request(context, call)
            loaded = await self._wait_loaded()
            return wire.list_models_response(loaded.models.current)

    async def get_model(self, _: object, context: Context) -> Any:
        """Tell about one model."""
        async with self._admission.admitted(context, "GetModel", CallKind.LOOKUP) as call:
            name = (await self._request(context, call)).model
            loaded = await self._wait_loaded()
            model = loaded.models.get(name, "model")
            return wire.get_model_response(model, default=model is loaded.models.current[0])

    async def _request(self, context: Context, call: Call) -> Any:
        with self._ending_when_idle(call) as activity:
            request = await Reader(context, activity, self._settings).first()
        if request is None:
            raise CallError("BAD_CONFIG", f"{call.rpc} takes one message, and there was none.")
        return request

    async def _wait_loaded(self) -> Loaded:
        return await asyncio.shield(self.loaded)

    def _ending_when_idle(self, call: Call) -> contextlib.AbstractContextManager[Activity]:
        settings = self._settings
        return ending_when_idle(call, settings.idle_timeout_s, settings.slow_reader_timeout_s)

    # Streams.

    def _refuse_if_overloaded(self) -> None:
        if not self.loaded.done():
            return
        load = self.loaded.result().engine.load
        if load.share > self._settings.max_load or load.lag_s > self._settings.max_lag_s:
            raise CallError("OVERLOADED", "This server has as much to listen to as it can: come back later.")

    async def _stream(self, context: Context, call: Call) -> None:
        with self._ending_when_idle(call) as activity:
            reader = Reader(context, activity, self._settings)
            first = await reader.first()
            if first is None or first.WhichOneof("request") != "config":
                raise CallError("CONFIG_EXPECTED_FIRST", "The first message of a stream must be its config.")
            config = first.config
            call.set_request_id(config.request_id, "config.request_id")
            loaded = await self._wait_loaded()
            versions = loaded.models.versions(config.model, "config.model")
            call.model = versions[0].metadata.name
            audio_format = wire.stream_format(config.audio_format, "config.audio_format")
            session, active = self._spotting(versions, audio_format, config)
            self._admission.raise_if_draining()
            with loaded.engine.open_stream(session, self._max_pending_ns) as stream:
                call.stream = stream
                if call.span is not None:
                    await context.send_initial_metadata(call.span.metadata)
                await self._write(context, activity, wire.started(session.model, active, call.request_id))
                try:
                    with reader.sending_on(stream, audio_format, session.start_ns):
                        await self._write_events(context, activity, call, stream, reader)
                finally:
                    call.audio_ns = stream.sent_ns

    def _spotting(
        self, versions: Sequence[SpotterModel], audio_format: AudioFormat, config: Any
    ) -> tuple[SpottingSession, tuple[ActiveKeyword, ...]]:
        """Begin with the newest version of a model, or go on with the one that a resume token is of."""
        refusals = []
        for model in versions if config.HasField("resume") else versions[:1]:
            active = wire.active_keywords(
                model.metadata, config.keywords, "config.keywords", self._settings.max_keywords
            )
            try:
                return wire.spotting(model, audio_format, active, config, self._resume_keys), active
            except CallError as error:
                if error.reason != "BAD_RESUME_TOKEN":
                    raise
                refusals.append(error)
        raise refusals[0]

    async def _write_events(
        self, context: Context, activity: Activity, call: Call, stream: StreamHandle, reader: Reader
    ) -> None:
        meta = stream.session.model.metadata
        ended = False
        while not ended:
            for event in await stream.events():
                if isinstance(event, Failed):
                    raise reader.cut_off or event.error
                if isinstance(event, Detection):
                    self.detections.record(call, event, meta.sample_rate_hz)
                ended = isinstance(event, Finished)
                if ended and reader.cut_off is not None:
                    raise reader.cut_off
                await self._write(context, activity, wire.response(event, meta, call.detection_count))

    @staticmethod
    async def _write(context: Context, activity: Activity, message: Any) -> None:
        activity.writing_since = activity.now()
        await left_to_end(context.write(message))
        activity.writing_since = None

    # Recordings.

    async def _begin(self, call: Call, request: Any) -> SpotterModel:
        call.set_request_id(request.request_id, "request_id")
        loaded = await self._wait_loaded()
        model = loaded.models.get(request.model, "model")
        call.model = model.metadata.name
        return model

    @contextlib.asynccontextmanager
    async def _recording(self, request: Any) -> AsyncIterator[tuple[AudioFormat, Input]]:
        """Give the audio of a request; what had to be decoded is counted until the block ends."""
        limit_s, stated = self._settings.max_recording_s, request.audio_format
        if wire.is_raw(stated):
            audio_format = wire.stream_format(stated, "audio_format")
            with wire.blaming("audio"):
                recordings.check_raw(request.audio, audio_format, limit_s)
            yield audio_format, request.audio
            return
        container = wire.container(stated)
        async with self._decoded:
            with wire.blaming("audio"):
                samples, rate_hz = await asyncio.to_thread(
                    recordings.decode,
                    request.audio,
                    container,
                    limit_s,
                    sample_rate_hz=stated.sample_rate_hertz,
                    channel_count=stated.channel_count,
                )
            yield AudioFormat(Encoding.FLOAT32, rate_hz), samples

    async def _listen(self, call: Call, session: Session, audio: Input) -> list[Event]:
        """Send a whole recording through the engine, among the streams."""
        loaded = await self._wait_loaded()
        events: list[Event] = []
        with loaded.engine.open_stream(session, self._max_pending_ns) as stream:
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
