"""The synchronous client: the same calls as `Client`, with plain iterators."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from earmark_client import messages, sync_stream
from earmark_client.audio import Encoding
from earmark_client.channel import (
    DEFAULT_ADDRESS,
    HealthStub,
    Line,
    SpottingStub,
    connect,
    is_local,
    options,
    target,
)
from earmark_client.credentials import credentials, metadata
from earmark_client.errors import error_from_rpc
from earmark_client.resume import RESUME_WITHIN_S, UnbrokenStream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from os import PathLike

    from earmark_client.audio import Chunk, KeywordSetting, Samples
    from earmark_client.credentials import Tls
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
        tls: bool | Tls = False,
        token: str | None = None,
        connect_timeout_s: float = 5.0,
        call_timeout_s: float = 60.0,
        round_robin: bool = False,
    ) -> None:
        self.address = target(address)
        self._connect_timeout_s = connect_timeout_s
        self._call_timeout_s = call_timeout_s
        own = credentials(tls)
        settings = options(self.address, connect_timeout_s, round_robin=round_robin)
        self._line = Line(
            lambda: connect(grpc, self.address, own, settings),
            metadata(token, is_safe=own is not None or is_local(self.address)),
        )
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._closed.set()
        for channel in self._line.close():
            channel.close()

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
        resume_within_s: float = RESUME_WITHIN_S,
        request_id: str = "",
    ) -> Generator[Event]:
        """Send live audio and get events as they are decided, as `Client.stream` does.

        `audio` is read on a thread of its own, so it may block; when the stream ends early, what it
        is blocked in is not interrupted.
        """
        stream = UnbrokenStream(
            sample_rate_hz=sample_rate_hz,
            encoding=encoding,
            channels=channels,
            model=model,
            keywords=keywords,
            score_interval_s=score_interval_s,
            progress_interval_s=progress_interval_s,
            resume=resume,
            resume_within_s=resume_within_s,
            request_id=request_id,
        )
        return sync_stream.events(stream, audio, line=self._line, address=self.address, closed=self._closed)

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
            with self._channel() as channel:
                check = HealthStub(channel).Check
                request = messages.health_request(service)
                return messages.health(
                    check(request, timeout=self._connect_timeout_s, metadata=self._line.metadata)
                )
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.address) from error

    def watch_health(self, service: str = "") -> Generator[Health]:
        """Give the health now, and again whenever it changes, until the server goes away."""
        with self._channel() as channel:
            call = HealthStub(channel).Watch(messages.health_request(service), metadata=self._line.metadata)
            answered = False
            try:
                for response in call:
                    answered = True
                    yield messages.health(response)
            except grpc.RpcError as error:
                raise error_from_rpc(error, self.address, answered=answered) from error
            finally:
                call.cancel()

    @contextmanager
    def _channel(self) -> Iterator[grpc.Channel]:
        channel = self._line.take()
        try:
            yield channel
        finally:
            worn = self._line.give_back(channel)
            if worn is not None:
                worn.close()

    def _unary(self, unary: messages.Unary[Result]) -> Result:
        try:
            with self._channel() as channel:
                method = getattr(SpottingStub(channel), unary.method)
                return unary.read(
                    method(unary.request, timeout=self._call_timeout_s, metadata=self._line.metadata)
                )
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.address) from error
