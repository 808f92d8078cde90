"""The verifier: further networks in the model file, which check each proposal of the first one.

The first network scores all audio, so it has to be small, and it cannot use later audio. A peak that reaches
the proposal threshold is rare. The verifier computes the final score of such a peak from the audio around it,
up to the end of the peak hold, so it adds no delay. A score that is certain is final, because the next graph
would reject almost none of these peaks. One proposal at a time: a batch costs as much for each of them, and
the result alone never depends on what else is in a batch.

A model has one or both of two graphs. One computes a score from the audio (2.7 ms). The other one computes a
score from the features of the speech encoder (11 ms), which all models of a process share; it is used if the
score so far reaches the encoder threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_spotter.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.speech_encoder import SpeechEncoder

VERIFIER_KEY = "earmark_verifier"
"""The ONNX metadata entry with the graph that needs audio: an ONNX file in base64."""

ENCODED_VERIFIER_KEY = "earmark_encoded_verifier"
"""The ONNX metadata entry with the graph that needs features of the speech encoder."""


class Verifier:
    """The verifier of a loaded model. It can be used from any number of threads at once."""

    def __init__(
        self, metadata: ModelMetadata, graph: Any, encoded: Any, encoder: SpeechEncoder | None
    ) -> None:
        """Use the ONNX Runtime sessions of the two graphs, one of which may be None.

        Raises ModelError for a graph that does not fit the metadata.
        """
        assert metadata.verifier is not None
        self._graph, self._encoded, self._encoder = graph, encoded, encoder
        self._certain_score = metadata.verifier.certain_score
        self._encoder_threshold = metadata.verifier.encoder_threshold
        self._encoder_certain_score = metadata.verifier.encoder_certain_score or self._certain_score
        window_samples = metadata.verifier.window_samples
        if encoder is not None and (
            window_samples < encoder.window_samples or metadata.sample_rate_hz != encoder.sample_rate_hz
        ):
            raise ModelError(
                f"The speech encoder needs {encoder.window_samples} samples at {encoder.sample_rate_hz} Hz, "
                f"but `verifier.window_samples` is {window_samples} at {metadata.sample_rate_hz} Hz."
            )
        silence = np.zeros(window_samples, np.float32)
        if graph is not None:
            _check(graph, "pcm", "[1, samples]", silence, metadata)
        if encoder is not None:
            _check(encoded, "features", "[1, frames, width]", encoder.features(silence), metadata)

    def final_scores(self, pcm: NDArray[np.float32], scores: Mapping[int, float]) -> dict[int, float]:
        """Return the final scores of the keywords that are proposed at a peak, 0 to 1, by class index.

        pcm: the audio up to the end of the peak hold, [window_samples]. scores: by the position of a keyword
        among the labels, the first network's score, which is final if it is certain.
        """
        uncertain = {i: s for i, s in scores.items() if s <= self._certain_score}
        finals = dict(scores)
        if self._graph is not None and uncertain:
            uncertain = _run(self._graph, "pcm", pcm, uncertain)
            finals |= uncertain
        low, high = self._encoder_threshold, self._encoder_certain_score
        uncertain = {i: s for i, s in uncertain.items() if low <= s <= high}
        if self._encoder is not None and uncertain:
            finals |= _run(self._encoded, "features", self._encoder.features(pcm), uncertain)
        return finals


def _check(session: Any, audio: str, shape: str, value: NDArray[np.float32], metadata: ModelMetadata) -> None:
    """Check a graph's inputs and output, and run it for all keywords on a value of its input `audio`."""
    assert metadata.verifier is not None
    window_samples = metadata.verifier.window_samples
    inputs = {audio: 1 + value.ndim, "class": 1, "score": 1}
    found = {value.name: len(value.shape) for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    if found != inputs or outputs != ["final_score"]:
        raise ModelError(
            f"The verifier's graph must have the inputs {audio} {shape}, class [keywords], score "
            f"[keywords] and the output final_score [keywords], but has {', '.join([*found, *outputs])}."
        )
    try:
        scores = _run(session, audio, value, dict.fromkeys(metadata.keyword_indices, 0.5))
    except Exception as error:
        raise ModelError(
            f"The verifier's graph does not run on a window of {window_samples} samples "
            f"(`verifier.window_samples`) for {len(metadata.keyword_indices)} keywords at once: {error}"
        ) from error
    for score in scores.values():
        if not 0 <= score <= 1:
            raise ModelError(f"The verifier's `final_score` must be a probability, but is {score}.")


def _run(
    session: Any, audio: str, value: NDArray[np.float32], scores: Mapping[int, float]
) -> dict[int, float]:
    """Run a graph on the audio or the features of one peak, for the keywords that are proposed there."""
    inputs = {
        audio: value[np.newaxis],
        "class": np.fromiter(scores, np.int64),
        "score": np.fromiter(scores.values(), np.float32),
    }
    (finals,) = session.run(("final_score",), inputs)
    return dict(zip(scores, finals.tolist(), strict=True))
