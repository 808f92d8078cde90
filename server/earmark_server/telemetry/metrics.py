"""The server's metrics for Prometheus, on a separate port. Each scrape collects them.

docs/operations.md explains each of them.
"""

from __future__ import annotations

import contextlib
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from earmark_server.rpc.call import CallKind
from earmark_server.rpc.handlers import all_rpcs
from earmark_server.telemetry.metrics_server import MetricsServer
from earmark_server.telemetry.rpc_metrics import RpcMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    """Collects the metrics of a server, also before it has loaded its models."""

    def __init__(
        self,
        settings: Settings,
        health: Health,
        admission: Admission,
        detections: DetectionLog,
        running: Callable[[], tuple[Loaded, Watchdog] | None],
        *,
        unusable_files: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._health = health
        self._admission = admission
        self._detections = detections
        self.rpcs = RpcMetrics(all_rpcs(reflection_enabled=settings.reflection))
        """The interceptor that counts RPCs."""
        self._running = running
        self._unusable_files = unusable_files

    @contextlib.contextmanager
    def served(self, host: str, port: int) -> Iterator[None]:
        """Serve the metrics, and those of the process, during the block; OSError if it cannot listen."""
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        with MetricsServer(host, port, registry).running():
            yield

    def collect(self) -> Iterator[Metric]:
        """Return all metrics, as prometheus_client requires."""
        yield from self._collect_rpcs()
        yield _gauge("earmark_serving", "1 while health reports SERVING, else 0", self._health.serving)
        yield _gauge(
            "earmark_streams_open",
            "Open streams, once for each of their models",
            self._admission.count(CallKind.STREAM),
        )
        yield _gauge(
            "earmark_streams_limit", "Limit on open streams (--max-streams)", self._settings.max_streams
        )
        yield _gauge(
            "earmark_load_limit_ratio", "Limit on earmark_load_ratio (--max-load)", self._settings.max_load
        )
        yield _gauge(
            "earmark_recordings_open",
            "Spot and Classify calls in progress",
            self._admission.count(CallKind.RECORDING),
        )
        yield _gauge(
            "earmark_unusable_files",
            "Files of tokens and certificates that were rejected, so that their old contents stay in use",
            self._unusable_files(),
        )
        running = self._running()
        if running is not None:
            yield from self._collect_engine(*running)

    def _collect_rpcs(self) -> Iterator[Metric]:
        methods = list(self.rpcs.methods.values())

        def counter(name: str, help_text: str, value: Callable[[Method], int]) -> Metric:
            family = CounterMetricFamily(name, help_text, labels=_RPC_LABELS)
            for method in methods:
                family.add_metric(method.labels, value(method))
            return family

        yield counter("grpc_server_started", "RPCs that started", lambda method: method.started)
        yield counter("grpc_server_msg_received", "Messages received", lambda method: method.received)
        yield counter("grpc_server_msg_sent", "Messages sent", lambda method: method.sent)
        handled = CounterMetricFamily(
            "grpc_server_handled", "RPCs that ended, by status code", labels=(*_RPC_LABELS, "grpc_code")
        )
        seconds = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Duration of RPCs in seconds", labels=_RPC_LABELS
        )
        for method in methods:
            for code, count in method.handled.items():
                handled.add_metric((*method.labels, code), count)
            _add(seconds, method.seconds, method.labels)
        yield handled
        yield seconds
        refusals = CounterMetricFamily(
            "earmark_refusals",
            "Calls that were rejected or ended with an error of earmark.v1, by reason",
            labels=("reason",),
        )
        for reason, count in self.rpcs.refusals.items():
            refusals.add_metric((reason,), count)
        yield refusals

    def _collect_engine(self, loaded: Loaded, watchdog: Watchdog) -> Iterator[Metric]:
        engine = loaded.engine
        counters = engine.counters
        yield CounterMetricFamily(
            "earmark_audio_seconds",
            "Audio processed, in seconds, once for each model",
            value=counters.processed_audio_s,
        )
        yield _gauge(
            "earmark_lag_seconds", "Queueing delay of the live stream that has waited longest", engine.lag_s
        )
        yield _gauge(
            "earmark_load_ratio", "Share of the engine's time that live streams use", engine.load.share
        )
        yield _gauge("earmark_queue_streams", "Streams that wait for inference", engine.queue_length)
        for name, help_text, histogram in (
            (
                "earmark_queue_wait_seconds",
                "Longest queueing delay in each round of the engine, in seconds",
                counters.queue_wait_s,
            ),
            ("earmark_batch_streams", "Streams in one inference (batch size)", counters.batch_sizes),
            ("earmark_step_seconds", "Duration of one inference in seconds", counters.inference_s),
        ):
            family = HistogramMetricFamily(name, help_text)
            _add(family, histogram, ())
            yield family
        yield CounterMetricFamily(
            "earmark_stalls", "Stalls of the engine or the event loop", value=watchdog.stalls
        )
        detections = CounterMetricFamily("earmark_detections", "Detections", labels=("model", "keyword"))
        info = InfoMetricFamily("earmark_model", "Models that new streams use", labels=("model",))
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
