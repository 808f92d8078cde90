"""The verifier: a second network in the model file, which checks each proposal of the first one.

The first network scores all audio, so it has to be small, and it cannot use later audio. A peak that reaches
the proposal threshold is rare. The verifier computes the final score of such a peak from the audio around it,
up to the end of the peak hold, so it adds no delay. A peak of which the first network is certain keeps its
score, because the verifier would reject almost none of these. One proposal at a time: a batch costs as much
for each of them (2.7 ms alone, 3.3 ms in batches of 32), and the result alone never depends on what else is
in a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_spotter.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earmark_spotter.metadata import ModelMetadata

VERIFIER_KEY = "earmark_verifier"
"""The ONNX metadata entry with the verifier: an ONNX file in base64."""

_INPUTS = {"pcm": 2, "class": 1, "score": 1}


class Verifier:
    """The second network of a loaded model. It can be used from any number of threads at once."""

    def __init__(self, session: Any, metadata: ModelMetadata) -> None:
        """Use an ONNX Runtime session. Raises ModelError for a graph that does not fit the metadata."""
        assert metadata.verifier is not None
        self._session = session
        self._certain_score = metadata.verifier.certain_score
        found = {value.name: len(value.shape) for value in session.get_inputs()}
        outputs = [value.name for value in session.get_outputs()]
        if found != _INPUTS or outputs != ["final_score"]:
            raise ModelError(
                "The verifier's graph must have the inputs pcm [batch, samples], class [batch], score "
                f"[batch] and the output final_score [batch], but has {', '.join([*found, *outputs])}."
            )
        window_samples = metadata.verifier.window_samples
        silence = np.zeros(window_samples, np.float32)
        for index in metadata.keyword_indices:
            try:
                score = self.final_score(silence, index, 0.5)
            except Exception as error:
                raise ModelError(
                    f"The verifier's graph does not run on a window of {window_samples} samples "
                    f"(`verifier.window_samples`): {error}"
                ) from error
            if not 0 <= score <= 1:
                raise ModelError(f"The verifier's `final_score` must be a probability, but is {score}.")

    def final_score(self, pcm: NDArray[np.float32], class_index: int, score: float) -> float:
        """Return the final score of a proposal, 0 to 1.

        pcm: the audio up to the end of the peak hold, [window_samples]. class_index: the position of the
        keyword among the labels. score: the first network's score at the peak, which is final if it is
        certain.
        """
        if score > self._certain_score:
            return score
        inputs = {
            "pcm": pcm[np.newaxis],
            "class": np.array([class_index], np.int64),
            "score": np.array([score], np.float32),
        }
        (final_score,) = self._session.run(("final_score",), inputs)
        return float(final_score.item())
