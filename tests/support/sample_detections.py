"""Two detections."""

from earmark_client import Detection

NO = Detection(keyword="no", confidence=0.9849, start_s=0.5, end_s=0.9, id="no-1")
YES = Detection(keyword="yes", confidence=1.0, start_s=1.25, end_s=1.75, id="yes-2")
