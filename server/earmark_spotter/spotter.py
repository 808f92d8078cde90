"""The spotter: keyword spotting on one stream of audio, and on whole recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_spotter.audio import AudioFormat, Encoding
from earmark_spotter.classifier import ClipClassifier
from earmark_spotter.detector import Detection, Detector, KeywordSetting, resolve_settings
from earmark_spotter.model import SpotterModel
from earmark_spotter.recent_audio import RecentAudio
from earmark_spotter.stream import StreamProgress, StreamState

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from earmark_spotter.detector import Candidate
    from earmark_spotter.model import Float32Array
    from earmark_spotter.resume import ResumePoint

DEFAULT_FORMAT = AudioFormat(Encoding.LINEAR16, 16_000)
"""The default format of a Spotter: 16-bit samples, 16 kHz, one channel."""


class Spotter:
    """Detects keywords in one stream of audio.

        spotter = Spotter.load()
        for chunk in microphone:
            for detection in spotter.feed(chunk):
                print(detection.keyword, detection.end_sample / 16000)
        print(spotter.flush())

    Chunks may have any length: the detections depend neither on it nor on the time between
    chunks. Detections count samples at the model's rate, whatever the rate of the format.
    """

    def __init__(
        self,
        model: SpotterModel,
        *,
        audio_format: AudioFormat = DEFAULT_FORMAT,
        keywords: Sequence[KeywordSetting] = (),
        resume: ResumePoint | None = None,
        resume_keys: Sequence[bytes] = (),
    ) -> None:
        """Create a spotter with a loaded model; one model serves any number of spotters.

        `keywords`: the keywords to detect and their settings; empty: all, as calibrated.
        `resume_keys`: the first one signs resume tokens, and all of them are accepted; empty: the
        key derived from the model file. Raises KeywordError, ThresholdError, and ResumeError for a
        resume point that does not fit.
        """
        self.model = model
        active = resolve_settings(model.metadata, keywords)
        self._stream = StreamState(model, audio_format, active, resume, resume_keys)
        self._model_state = model.initial_states(1)  # [1, state_size]

    @classmethod
    def load(
        cls,
        model_path: str | os.PathLike[str] | None = None,
        *,
        audio_format: AudioFormat = DEFAULT_FORMAT,
        keywords: Sequence[KeywordSetting] = (),
    ) -> Spotter:
        """Load a model, by default the bundled one, and create a spotter with it."""
        return cls(SpotterModel.load(model_path), audio_format=audio_format, keywords=keywords)

    def feed(self, audio: bytes | Float32Array) -> list[Detection]:
        """Process the next audio; return the detections, often none.

        audio: bytes in the spotter's format, split at any byte, or float32 samples [n] or
        [n, channels] at its rate, full scale -1 to 1. Raises AudioError for invalid samples.
        """
        if isinstance(audio, np.ndarray):
            self._stream.push_samples(audio)
        else:
            self._stream.push_audio(audio)
        return self._process()

    def feed_silence(self, sample_count: int) -> list[Detection]:
        """Process `sample_count` samples, at the format's rate, of digital silence."""
        self._stream.push_silence(sample_count)
        return self._process()

    def flush(self) -> list[Detection]:
        """End the audio; return the last detections. Nothing can be fed after it.

        Raises AudioError if the audio ended inside a sample.
        """
        self._stream.finish()
        return self._process()

    def progress(self) -> StreamProgress:
        """Return the position of the stream, with a token to resume it from here."""
        return self._stream.progress()

    def _process(self) -> list[Detection]:
        stream, detections = self._stream, []
        limit = _steps_per_call(self.model)
        while stream.ready_steps:
            if steps := stream.steps_to_run(limit):
                if stream.starts_from_initial_state:
                    self._model_state = self.model.initial_states(1)
                pcm = stream.consume(steps)
                scores, self._model_state = self.model.step(pcm[np.newaxis], self._model_state)
                detections += stream.apply(scores[0])
            else:
                if not stream.quiet_steps:
                    break  # the gate needs more audio to decide
                detections += stream.skip(min(stream.quiet_steps, stream.skip_limit))
        return detections


def score_recording(model: SpotterModel, samples: Float32Array) -> Float32Array:
    """Return the scores of every class for a whole recording.

    samples: float32 [n], mono at the model's rate; padded with silence to a whole step.
    Returns [frames, classes], frames = ceil(n / step_samples) * frames_per_step.
    """
    step_samples = model.metadata.step_samples
    padded = np.pad(samples, (0, -samples.shape[0] % step_samples))
    call_samples = _steps_per_call(model) * step_samples
    state = model.initial_states(1)
    blocks = [np.zeros((0, len(model.metadata.labels)), np.float32)]
    for start in range(0, padded.shape[0], call_samples):
        scores, state = model.step(padded[np.newaxis, start : start + call_samples], state)
        blocks.append(scores[0])
    return np.concatenate(blocks)


def final_scores(model: SpotterModel, samples: Float32Array) -> Float32Array:
    """Return the scores that decide the detections of a whole recording, at whatever thresholds.

    Arguments and shape as for `score_recording`, whose result this is for a model without a verifier. With
    one, only the peaks that reach the proposal threshold have a score: the final one. All others are 0.
    """
    scores = score_recording(model, samples)
    if model.verifier is None:
        return scores
    final = np.zeros_like(scores)

    def record(candidate: Candidate, finals: dict[int, float]) -> None:
        for index, score in finals.items():
            final[candidate.frame, index] = score

    _verify(model, samples, scores, record)
    return final


def classify(model: SpotterModel, samples: Float32Array) -> Float32Array:
    """Return the score of every class, [classes], for a clip with one word in it.

    samples: float32 [n], mono at the model's rate, of any length. Silence is appended, so that a
    word at the very end is complete. ClipClassifier explains how the scores are combined.
    """
    meta = model.metadata
    longest_lag_ms = max(info.end_lag_ms for info in meta.keywords.values())
    tail = meta.samples_from_ms(longest_lag_ms + meta.detector.hold_ms)
    samples = np.pad(samples, (0, max(1, tail)))
    scores = score_recording(model, samples)
    classifier = ClipClassifier.for_model(model)
    classifier.push(scores)
    if model.verifier is not None:
        _verify(model, samples, scores, lambda _, finals: classifier.add_finals(finals))
    return classifier.scores


def _verify(
    model: SpotterModel,
    samples: Float32Array,
    scores: Float32Array,
    on_final_scores: Callable[[Candidate, dict[int, float]], None],
) -> None:
    """Call a function with each peak of a recording that the verifier checks, and its final scores."""
    meta, verifier = model.metadata, model.verifier
    assert meta.verifier is not None
    assert verifier is not None
    window_samples, recent = meta.verifier.window_samples, RecentAudio(0)
    recent.extend([samples])

    def final_scores_of(candidate: Candidate, hold_end: int) -> dict[int, float]:
        finals = verifier.final_scores(
            recent.samples(hold_end - window_samples, hold_end), candidate.proposed
        )
        on_final_scores(candidate, finals)
        return finals

    detector = Detector(meta, resolve_settings(meta), final_scores=final_scores_of)
    detector.push(scores)
    detector.flush()


def _steps_per_call(model: SpotterModel) -> int:
    """Return the steps in about a second of audio; longer calls are no faster and need more memory."""
    return max(1, model.metadata.sample_rate_hz // model.metadata.step_samples)
