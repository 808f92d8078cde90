"""The engine's counters, which the metrics and the watchdog read."""

from __future__ import annotations

from dataclasses import dataclass, field

from earmark_server.histogram import Histogram


def _batch_histogram() -> Histogram:
    return Histogram((1, 2, 4, 8, 16, 32, 64))


def _inference_histogram() -> Histogram:
    return Histogram((0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1))


def _wait_histogram() -> Histogram:
    return Histogram((0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5))


@dataclass(slots=True)
class EngineCounters:
    """Counters, each written by one thread; other threads may read slightly older values.

    All but `loop_heartbeat` belong to the engine's thread.
    """

    processed_audio_s: float = 0.0
    """Audio that was processed, of all streams, once for each of their models."""
    released_bytes: int = 0
    """Bytes of audio that streams have sent and that are not held any more."""
    open_slots: int = 0
    """Slots of the state pools in use."""
    heartbeat: int = 0
    """Grows with everything that the thread does; it stands still while the thread is idle or stalled."""
    loop_heartbeat: int = 0
    """Grows with everything that the event loop sends to the engine."""
    is_busy: bool = False
    """Whether the thread is working rather than waiting for work."""
    batch_sizes: Histogram = field(default_factory=_batch_histogram)
    """Streams in one inference."""
    inference_s: Histogram = field(default_factory=_inference_histogram)
    """Time of one inference."""
    queue_wait_s: Histogram = field(default_factory=_wait_histogram)
    """The longest wait of a stream in the queue, for each round."""
