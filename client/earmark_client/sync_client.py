"""The synchronous client: the calls of `Client`, with plain iterators."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from earmark_client import messages, sync_stream
from earmark_client.addresses import DEFAULT_ADDRESS
from earmark_client.audio import AudioFormat, Encoding, as_chunks
from earmark_client.channel_pool import ChannelPool, HealthStub, SpottingStub, timeout_s
from earmark_client.errors import EarmarkError, client_closed, error_from_rpc, timed_out
from earmark_client.resume import ResumableStream
from earmark_client.stream_options import DEFAULT_RESUME_WITHIN_S, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from os import PathLike

    from earmark_client.audio import Chunk, KeywordSetting, Samples
    from earmark_client.credentials import Tls
    from earmark_client.events import Classification, Event, Health, ModelInfo, Progress, SpotResult

Result = TypeVar("Result")


class SyncClient:
    """A connection to an Earmark server, without asyncio; arguments and results are those of `Client`.

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
        self._pool = ChannelPool(
            grpc.insecure_channel,
            grpc.secure_channel,
            address=address,
            tls=tls,
            token=token,
            connect_timeout_s=connect_timeout_s,
            round_robin=round_robin,
        )
        self.address = self._pool.target
        self._call_timeout_s = timeout_s("call_timeout_s", call_timeout_s)
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and cancel all running calls."""
        self._closed.set()
        for channel in self._pool.close():
            channel.close()

    def stream(
        self,
        audio: Iterable[Chunk],
        *,
        sample_rate_hz: int,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        channel: int | None = None,
        model: str = "",
        models: Iterable[str] = (),
        keywords: Iterable[str | KeywordSetting] = (),
        score_interval_s: float | None = None,
        progress_interval_s: float | None = None,
        resume: Progress | None = None,
        resume_within_s: float = DEFAULT_RESUME_WITHIN_S,
        gate: bool = False,
        request_id: str = "",
        keep_audio_s: float | None = None,
    ) -> Generator[Event]:
        """Stream live audio; yield events as soon as they are decided, as `Client.stream` does.

        `audio` is read on a separate thread, so it may block. If the stream ends early, a read that
        blocks is not interrupted.
        """
        options = StreamOptions(
            audio_format=AudioFormat(sample_rate_hz, encoding, channels, channel),
            model=model,
            models=models,
            keywords=keywords,
            score_interval_s=score_interval_s,
            progress_interval_s=progress_interval_s,
            resume=resume,
            resume_within_s=resume_within_s,
            gate=gate,
            request_id=request_id,
            keep_audio_s=keep_audio_s,
        )
        return sync_stream.events(
            ResumableStream(options), as_chunks(audio), pool=self._pool, closed=self._closed
        )

    def spot(
        self,
        audio: str | PathLike[str] | bytes | Samples,
        *,
        sample_rate_hz: int | None = None,
        encoding: Encoding = Encoding.LINEAR16,
        channels: int = 1,
        channel: int | None = None,
        model: str = "",
        models: Iterable[str] = (),
        keywords: Iterable[str | KeywordSetting] = (),
        request_id: str = "",
    ) -> SpotResult:
        """Detect keywords in a whole short recording, as `Client.spot` does."""
        return self._unary(
            messages.spot(
                audio,
                None if sample_rate_hz is None else AudioFormat(sample_rate_hz, encoding, channels, channel),
                channel=channel,
                model=model,
                models=models,
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
        channel: int | None = None,
        model: str = "",
        request_id: str = "",
    ) -> Classification:
        """Classify a clip with one word, as `Client.classify` does."""
        return self._unary(
            messages.classify(
                audio,
                None if sample_rate_hz is None else AudioFormat(sample_rate_hz, encoding, channels, channel),
                channel=channel,
                model=model,
                request_id=request_id,
            )
        )

    def list_models(self) -> tuple[ModelInfo, ...]:
        """List the models that the server has loaded, the default model first."""
        return self._unary(messages.list_models())

    def get_model(self, name: str = "") -> ModelInfo:
        """Return one model, without a name the default model."""
        return self._unary(messages.get_model(name))

    def health(self, service: str = "") -> Health:
        """Return the health of the server, or of one of its services."""
        try:
            with self._channel() as channel:
                check = self._pool.stub(HealthStub, channel).Check
                request = messages.health_request(service)
                return messages.health(
                    check(request, timeout=self._pool.connect_timeout_s, metadata=self._pool.call_metadata)
                )
        except grpc.RpcError as error:
            raise self._error(error) from error

    def watch_health(self, service: str = "") -> Generator[Health]:
        """Yield the current health, and again at each change.

        Raises TimedOutError if the first answer does not come within `connect_timeout_s`, and another
        EarmarkError when the server is lost.
        """
        with self._channel() as channel:
            request = messages.health_request(service)
            call = self._pool.stub(HealthStub, channel).Watch(request, metadata=self._pool.call_metadata)
            answered = False
            expired = threading.Event()

            def expire() -> None:
                expired.set()
                call.cancel()

            timer = threading.Timer(self._pool.connect_timeout_s, expire)
            timer.daemon = True
            timer.start()
            try:
                for response in call:
                    timer.cancel()
                    answered = True
                    yield messages.health(response)
            except grpc.RpcError as error:
                if not answered and expired.is_set():
                    raise timed_out(self.address) from None
                raise self._error(error, answered=answered) from error
            finally:
                timer.cancel()
                call.cancel()

    def _error(self, error: grpc.RpcError, *, answered: bool = False) -> EarmarkError:
        if self._closed.is_set():
            return client_closed()
        return error_from_rpc(error, self.address, answered=answered)

    @contextmanager
    def _channel(self) -> Iterator[grpc.Channel]:
        channel = self._pool.acquire()
        try:
            yield channel
        except ValueError:  # what gRPC raises if `close` has closed the channel since
            if self._closed.is_set():
                raise client_closed() from None
            raise
        finally:
            unused = self._pool.release(channel)
            if unused is not None:
                unused.close()

    def _unary(self, call: messages.UnaryCall[Result]) -> Result:
        try:
            with self._channel() as channel:
                method = getattr(self._pool.stub(SpottingStub, channel), call.method)
                return call.parse(
                    method(call.request, timeout=self._call_timeout_s, metadata=self._pool.call_metadata)
                )
        except grpc.RpcError as error:
            raise self._error(error) from error
