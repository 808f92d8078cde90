"""The server's numbers for Prometheus: read where they are when somebody asks, on a port of their own.

docs/operations.md says what each of them means.
"""

from __future__ import annotations

import contextlib
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from earmark_server.rpc.call import CallKind
from earmark_server.rpc.handlers import services
from earmark_server.telemetry.rpc_metrics import RpcMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import Metric

    from earmark_server.histogram import Histogram
    from earmark_server.inference.watchdog import Watchdog
    from earmark_server.rpc.admission import Admission
    from earmark_server.rpc.detection_log import DetectionLog
    from earmark_server.rpc.health import Health
    from earmark_server.rpc.service import Loaded
    from earmark_server.settings import Settings
    from earmark_server.telemetry.rpc_metrics import Method

_RPC_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class Metrics(Collector):
    """Collects the numbers of a server; also while it has not loaded its models."""

    def __init__(
        self,
        settings: Settings,
        health: Health,
        admission: Admission,
        detections: DetectionLog,
        running: Callable[[], tuple[Loaded, Watchdog] | None],
    ) -> None:
        self._settings = settings
        self._health = health
        self._admission = admission
        self._detections = detections
        self.rpcs = RpcMetrics(services(reflection_enabled=settings.reflection))
        """An interceptor that counts what only it can see."""
        self._running = running

    @contextlib.contextmanager
    def served(self, host: str, port: int) -> Iterator[None]:
        """Give the numbers, and the process' own, to whoever asks; OSError if it cannot listen."""
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        server: WSGIServer
        server, thread = start_http_server(port, host, registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def collect(self) -> Iterator[Metric]:
        """Give all of them."""
        yield from self._of_rpcs()
        yield _gauge("earmark_serving", "1 while health says SERVING, else 0", self._health.serving)
        yield _gauge("earmark_streams_open", "Streams that are open", self._admission.count(CallKind.STREAM))
        yield _gauge("earmark_streams_limit", "Streams that may be open", self._settings.max_streams)
        yield _gauge(
            "earmark_recordings_open",
            "Recordings that are listened to",
            self._admission.count(CallKind.RECORDING),
        )
        running = self._running()
        if running is not None:
            yield from self._of_engine(*running)

    def _of_rpcs(self) -> Iterator[Metric]:
        methods = list(self.rpcs.methods.values())

        def counter(name: str, help_text: str, value: Callable[[Method], int]) -> Metric:
            family = CounterMetricFamily(name, help_text, labels=_RPC_LABELS)
            for method in methods:
                family.add_metric(method.labels, value(method))
            return family

        yield counter("grpc_server_started", "RPCs that began", lambda method: method.started)
        yield counter("grpc_server_msg_received", "Messages received", lambda method: method.received)
        yield counter("grpc_server_msg_sent", "Messages sent", lambda method: method.sent)
        handled = CounterMetricFamily(
            "grpc_server_handled", "RPCs that ended, by their status", labels=(*_RPC_LABELS, "grpc_code")
        )
        seconds = HistogramMetricFamily(
            "grpc_server_handling_seconds", "How long RPCs were open", labels=_RPC_LABELS
        )
        for method in methods:
            for code, count in method.handled.items():
                handled.add_metric((*method.labels, code), count)
            _add(seconds, method.seconds, method.labels)
        yield handled
        yield seconds
        refusals = CounterMetricFamily(
            "earmark_refusals", "Calls that ended with an error of the contract", labels=("reason",)
        )
        for reason, count in self.rpcs.refusals.items():
            refusals.add_metric((reason,), count)
        yield refusals

    def _of_engine(self, loaded: Loaded, watchdog: Watchdog) -> Iterator[Metric]:
        engine = loaded.engine
        counters = engine.counters
        yield CounterMetricFamily(
            "earmark_audio_seconds", "Audio that was listened to", value=engine.counters.processed_audio_s
        )
        yield _gauge("earmark_lag_seconds", "How long the stream that waits longest has waited", engine.lag_s)
        yield _gauge(
            "earmark_load_ratio", "Share of the engine's time that live streams take", engine.load.share
        )
        yield _gauge("earmark_queue_streams", "Streams that wait to be listened to", engine.queue_length)
        for name, help_text, histogram in (
            (
                "earmark_queue_wait_seconds",
                "Longest wait of a stream, by round",
                counters.queue_wait_s,
            ),
            ("earmark_batch_streams", "Streams in one run of a model", counters.batch_sizes),
            ("earmark_step_seconds", "Time that one run of a model took", counters.inference_s),
        ):
            family = HistogramMetricFamily(name, help_text)
            _add(family, histogram, ())
            yield family
        yield CounterMetricFamily(
            "earmark_stalls", "Times that the engine or the event loop stalled", value=watchdog.stalls
        )
        detections = CounterMetricFamily("earmark_detections", "Detections", labels=("model", "keyword"))
        info = InfoMetricFamily("earmark_model", "What is loaded", labels=("model",))
        for model in loaded.models.current:
            meta = model.metadata
            info.add_metric((meta.name,), {"version": meta.version, "sha256": model.sha256})
            for keyword in meta.keywords:
                count = self._detections.counts[meta.name, keyword]
                detections.add_metric((meta.name, keyword), count)
        yield detections
        yield info


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _add(family: HistogramMetricFamily, histogram: Histogram, labels: tuple[str, ...]) -> None:
    bounds = (*map(str, map(float, histogram.bounds)), "+Inf")
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    family.add_metric(labels, buckets, histogram.total)
