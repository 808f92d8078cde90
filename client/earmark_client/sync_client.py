"""The synchronous client: the same calls as `Client`, with plain iterators."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from earmark_client import messages
from earmark_client.audio import Encoding
from earmark_client.channel import DEFAULT_ADDRESS, HealthStub, SpottingStub, options, target
from earmark_client.errors import EarmarkError, error_from_rpc

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from os import PathLike

    from earmark_client.audio import Chunk, KeywordSetting, Samples
    from earmark_client.events import Classification, Event, Health, ModelInfo, Progress, SpotResult

Result = TypeVar("Result")


class SyncClient:
    """A connection to an Earmark server, for plain code; the arguments and results are `Client`'s.

    Threads may share one client.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        connect_timeout_s: float = 5.0,
        call_timeout_s: float = 60.0,
    ) -> None:
        self.address = target(address)
        self._connect_timeout_s = connect_timeout_s
        self._call_timeout_s = call_timeout_s
        self._open_channel = grpc.insecure_channel(
            self.address, options=options(self.address, self._connect_timeout_s)
        )
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._closed = True
        self._open_channel.close()

    def stream(
        self,
        audio: Iterable[Chunk],
        *,
        sample_rate_hz: int,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        model: str = "",
        keywords: Iterable[str | KeywordSetting] = (),
        score_interval_s: float | None = None,
        progress_interval_s: float | None = None,
        resume: Progress | None = None,
        request_id: str = "",
    ) -> Generator[Event]:
        """Send live audio and get events as they are decided, as `Client.stream` does.

        `audio` is read on a thread of gRPC's, so it may block; when the stream ends early, what it
        is blocked in is not interrupted.
        """
        first = messages.stream_config(
            sample_rate_hz=sample_rate_hz,
            encoding=encoding,
            channels=channels,
            model=model,
            keywords=keywords,
            score_interval_s=score_interval_s,
            progress_interval_s=progress_interval_s,
            resume=resume,
            request_id=request_id,
        )
        requests = _Requests(first, audio, encoding)
        call = SpottingStub(self._channel()).StreamingSpot(iter(requests))
        requests.call.set_result(call)
        answered = False
        try:
            for response in call:
                answered = True
                event = messages.event(response)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            if requests.failure is not None:
                raise requests.failure from None
            raise error_from_rpc(error, self.address, answered=answered) from error
        finally:
            call.cancel()

    def spot(
        self,
        audio: str | PathLike[str] | bytes | Samples,
        *,
        sample_rate_hz: int | None = None,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        model: str = "",
        keywords: Iterable[str | KeywordSetting] = (),
        request_id: str = "",
    ) -> SpotResult:
        """Mark every keyword in a whole short recording, as `Client.spot` does."""
        return self._unary(
            messages.spot(
                audio,
                sample_rate_hz=sample_rate_hz,
                encoding=encoding,
                channels=channels,
                model=model,
                keywords=keywords,
                request_id=request_id,
            )
        )

    def classify(
        self,
        audio: str | PathLike[str] | bytes | Samples,
        *,
        sample_rate_hz: int | None = None,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        model: str = "",
        request_id: str = "",
    ) -> Classification:
        """Name the one word in a clip, as `Client.classify` does."""
        return self._unary(
            messages.classify(
                audio,
                sample_rate_hz=sample_rate_hz,
                encoding=encoding,
                channels=channels,
                model=model,
                request_id=request_id,
            )
        )

    def list_models(self) -> tuple[ModelInfo, ...]:
        """List the models that the server has loaded, the default one first."""
        return self._unary(messages.list_models())

    def get_model(self, name: str = "") -> ModelInfo:
        """Describe one model; without a name, the default one."""
        return self._unary(messages.get_model(name))

    def health(self, service: str = "") -> Health:
        """Ask whether the server, or one of its services, is serving."""
        try:
            return messages.health(
                HealthStub(self._channel()).Check(
                    messages.health_request(service), timeout=self._connect_timeout_s
                )
            )
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.address) from error

    def watch_health(self, service: str = "") -> Generator[Health]:
        """Give the health now, and again whenever it changes, until the server goes away."""
        call = HealthStub(self._channel()).Watch(messages.health_request(service))
        answered = False
        try:
            for response in call:
                answered = True
                yield messages.health(response)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.address, answered=answered) from error
        finally:
            call.cancel()

    def _channel(self) -> grpc.Channel:
        if self._closed:
            raise EarmarkError("this client has been closed: make a new one")
        return self._open_channel

    def _unary(self, unary: messages.Unary[Result]) -> Result:
        method = getattr(SpottingStub(self._channel()), unary.method)
        try:
            return unary.read(method(unary.request, timeout=self._call_timeout_s))
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.address) from error


class _Requests:
    """The requests of one stream, iterated on gRPC's thread; keeps the failure of `audio` for the caller.

    gRPC takes an iterator's end for the end of the audio, and an exception for nothing in particular:
    so a failure cancels the call first.
    """

    def __init__(self, first: Any, audio: Iterable[Chunk], encoding: Encoding) -> None:
        self._first = first
        self._audio = audio
        self._encoding = encoding
        # gRPC begins to iterate before it has handed out the call.
        self.call: Future[Any] = Future()
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        try:
            yield self._first
            for chunk in self._audio:
                yield from messages.chunk_requests(chunk, self._encoding)
        except Exception as failure:
            self.failure = failure
            self.call.result().cancel()
