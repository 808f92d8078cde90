"""Keyword spotting as a library: audio in, keyword detections out."""

from earmark_spotter.audio import AudioDecoder, AudioFormat, Encoding
from earmark_spotter.classifier import ClipClassifier
from earmark_spotter.container import Container
from earmark_spotter.detector import ActiveKeyword, Detection, Detector, KeywordSetting, resolve_settings
from earmark_spotter.errors import (
    AudioError,
    EncodingError,
    IncompleteRecordingError,
    KeywordError,
    ModelError,
    ResumeError,
    SampleRateError,
    SpotterError,
    ThresholdError,
    TooLongError,
)
from earmark_spotter.metadata import ModelMetadata
from earmark_spotter.model import SpotterModel
from earmark_spotter.recording import INCOMPLETE, DecodedRecording, decode_recording, read_recording
from earmark_spotter.resume import ResumePoint
from earmark_spotter.sample_time import offset_ns
from earmark_spotter.spotter import Spotter, classify, final_scores, score_recording
from earmark_spotter.stream import StreamProgress, StreamState

__all__ = [
    "INCOMPLETE",
    "ActiveKeyword",
    "AudioDecoder",
    "AudioError",
    "AudioFormat",
    "ClipClassifier",
    "Container",
    "DecodedRecording",
    "Detection",
    "Detector",
    "Encoding",
    "EncodingError",
    "IncompleteRecordingError",
    "KeywordError",
    "KeywordSetting",
    "ModelError",
    "ModelMetadata",
    "ResumeError",
    "ResumePoint",
    "SampleRateError",
    "Spotter",
    "SpotterError",
    "SpotterModel",
    "StreamProgress",
    "StreamState",
    "ThresholdError",
    "TooLongError",
    "classify",
    "decode_recording",
    "final_scores",
    "offset_ns",
    "read_recording",
    "resolve_settings",
    "score_recording",
]
