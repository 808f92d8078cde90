"""A gRPC server that violates the API in one chosen way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
from earmark.v1 import keyword_spotting_pb2 as pb
from earmark.v1 import keyword_spotting_service_pb2 as service_pb
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from support.deadlines import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Response = service_pb.StreamingSpotResponse


def started(keyword: str = "yes") -> Response:
    """Return a valid first event."""
    return Response(
        started=service_pb.StreamStarted(
            model="model",
            model_version="1.0.0",
            request_id="request",
            step_length=Duration(nanos=40_000_000),
            keywords=[pb.ActiveKeyword(keyword=keyword, threshold=0.5)],
        )
    )


def progress(seconds: float, *, draining: bool = False) -> Response:
    """Return Progress of which all offsets are the same."""
    offset = Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
    return Response(
        progress=service_pb.Progress(
            received_offset=offset,
            decided_offset=offset,
            replay_offset=offset,
            resume_token=b"token",
            draining=draining,
        )
    )


def detection(keyword: str = "yes", *, confidence: float = 1.0, detection_id: str = "yes-1") -> Response:
    """Return a detection."""
    return Response(
        detection=pb.KeywordDetection(
            keyword=keyword,
            confidence=confidence,
            end_offset=Duration(nanos=500_000_000),
            detection_id=detection_id,
        )
    )


def warning(reason: str = "CLIPPED") -> Response:
    """Return a warning."""
    return Response(warning=pb.Warning(reason=reason, message="The audio is clipped."))


def ended() -> Response:
    """Return a valid last event."""
    return Response(ended=service_pb.StreamEnded(audio_duration=Duration(seconds=1), detection_count=1))


class MisbehavingServer:
    """The server and the number of its calls."""

    def __init__(
        self, behaviour: Callable[[MisbehavingServer, Any], Iterator[Response | bytes]], *, reads: bool
    ) -> None:
        self._behaviour = behaviour
        self._reads = reads
        self._stopped = threading.Event()
        self._received = threading.Condition()
        self._received_bytes = 0
        self.address = ""
        self.calls = 0

    def wait(self, timeout_s: float | None = None) -> bool:
        """Do nothing until the server stops, or for some time; return whether it stops."""
        return self._stopped.wait(timeout_s)

    def wait_for_audio(self, length_bytes: int) -> None:
        """Wait until the current call has received this much audio."""
        with self._received:
            assert self._received.wait_for(lambda: self._received_bytes >= length_bytes, DEADLINE_S)

    def stop(self) -> None:
        """Let all calls that wait continue."""
        self._stopped.set()

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Handle one call; its audio is read and ignored, or not even read."""
        self.calls += 1
        self._received_bytes = 0
        if self._reads:
            threading.Thread(target=self._read_all, args=[requests], daemon=True).start()
        for response in self._behaviour(self, context):
            yield response if isinstance(response, bytes) else response.SerializeToString()

    def watch_health(self, _: bytes, __: grpc.ServicerContext) -> Iterator[bytes]:
        """Handle a watch of the health, which is never answered."""
        self.wait()
        yield from ()

    def _read_all(self, requests: Iterator[bytes]) -> None:
        with suppress(Exception):  # gRPC raises it once the call has ended
            for request in requests:
                with self._received:
                    self._received_bytes += len(service_pb.StreamingSpotRequest.FromString(request).audio)
                    self._received.notify_all()


def abort(context: grpc.ServicerContext, message: str = "failed", retry_after_s: int | None = None) -> None:
    """End a call as UNAVAILABLE, with a RetryInfo if there is a delay."""
    if retry_after_s is not None:
        status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=message)
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="DRAINING", domain="earmark.v1"))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=retry_after_s)))
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNAVAILABLE, message)


@contextmanager
def misbehaving_server(
    behaviour: Callable[[MisbehavingServer, Any], Iterator[Response | bytes]], *, reads: bool = True
) -> Iterator[MisbehavingServer]:
    """Run a server that handles all streams with `behaviour`, and reads their audio or does not."""
    misbehaving = MisbehavingServer(behaviour, reads=reads)
    handler = grpc.stream_stream_rpc_method_handler(misbehaving.stream)
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "earmark.v1.KeywordSpottingService", {"StreamingSpot": handler}
            ),
            grpc.method_handlers_generic_handler(
                "grpc.health.v1.Health",
                {"Watch": grpc.unary_stream_rpc_method_handler(misbehaving.watch_health)},
            ),
        )
    )
    misbehaving.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield misbehaving
    finally:
        misbehaving.stop()
        server.stop(None).wait()
