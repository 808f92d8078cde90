"""Counts detections for the metrics, and logs each one, so that it can be looked up by its request id."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from earmark_server.logs import log

if TYPE_CHECKING:
    from earmark_spotter import Detection

    from earmark_server.rpc.call import Call

_LOGGER = logging.getLogger(__name__)


class DetectionLog:
    """The detections that a server has sent."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """Detections by model name and keyword."""

    def record(self, call: Call, detection: Detection, rate_hz: int) -> None:
        """Count and log a detection of a call; `rate_hz` is the model's sample rate."""
        call.detection_count += 1
        self.counts[detection.model, detection.keyword] += 1
        log(
            _LOGGER,
            logging.INFO,
            "detection",
            request_id=call.request_id,
            model=detection.model,
            keyword=detection.keyword,
            start_s=round(detection.start_sample / rate_hz, 3),
            end_s=round(detection.end_sample / rate_hz, 3),
            confidence=round(detection.confidence, 3),
            detection_id=detection.id,
        )
