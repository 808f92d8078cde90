"""The metadata of a model for new keywords, before its thresholds and its accuracy are known."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

from earmark_spotter.metadata import (
    KeywordInfo,
    ModelMetadata,
    TrainingInfo,
    TrainingSource,
)

from earmark_training.data.vocabulary import labels_for
from earmark_training.model.code_commit import code_commit
from earmark_training.model.encoded_verifier import ENCODER_SOURCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_training.model.network import Shape
    from earmark_training.model.speech_embedding import EmbeddingShape

_MAX_NAME = 64
_EMBEDDING_SOURCES = (
    TrainingSource(
        "speech embedding (arXiv 2002.01322), trained on words in public videos", "Apache-2.0", "Google"
    ),
    TrainingSource(
        "LibriSpeech and Speech Commands, on which the embedding was fine-tuned for noise and rooms",
        "CC BY 4.0",
        "Vassil Panayotov et al.; Pete Warden",
    ),
)


def initial_metadata(
    keywords: Sequence[str],
    *,
    name: str | None,
    version: str,
    base: ModelMetadata,
    shape: Shape | EmbeddingShape,
    embedding: bool,
    recorded: Sequence[str],
    real_speech: bool,
    synthesized: bool,
    neural_voices: bool = False,
) -> ModelMetadata:
    """Return the metadata of a model for new keywords that is fine-tuned from `base`, or from the embedding.

    `recorded` are the keywords with recordings; `real_speech`, `synthesized` and `neural_voices` say which
    speech is used for training. Without a `name`, the model is named after the keywords.
    """
    sources = [
        *(_EMBEDDING_SOURCES if embedding else base.training.sources),
        *(
            TrainingSource(f"recordings of {k!r}", "as granted by the speakers", "the author of this model")
            for k in recorded
        ),
        ENCODER_SOURCE,
    ]
    if neural_voices:
        sources.append(TrainingSource("speech synthesized by Kokoro-82M", "Apache-2.0", "hexgrad"))
    if real_speech:
        sources.append(
            TrainingSource(
                "speech without the keyword", "as granted by its authors", "the author of this model"
            )
        )
    if synthesized:
        sources.append(
            TrainingSource("synthesized speech", "free", "eSpeak NG, Flite and Festival, if installed")
        )
    return ModelMetadata(
        name=name or default_name(keywords),
        version=version,
        labels=labels_for(tuple(keywords)),
        keywords={k: KeywordInfo(0.5, refractory_ms=500, end_lag_ms=0, duration_ms=600) for k in keywords},
        sample_rate_hz=shape.sample_rate_hz,
        step_samples=shape.frame_samples,
        frame_samples=shape.frame_samples,
        receptive_field_samples=shape.receptive_field_samples,
        detector=replace(base.detector, smoothing_frames=shape.smoothing_frames),
        metrics=(),
        # The base may have been trained on some of them itself.
        training=TrainingInfo(tuple(dict.fromkeys(sources)), code_commit()),
        gate=base.gate,
    )


def default_name(keywords: Sequence[str]) -> str:
    """Return the name of a model for keywords: their letters and digits, with dashes for the rest.

    If that is not all of them, because they have other letters than A to Z or are long, the name ends with
    eight digits of their checksum, so that models of different keywords can be served together.
    """
    text = "-".join(keywords)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", _without_accents(text)).strip("-._")
    if re.fullmatch(r"[\w .'-]+", text, re.ASCII) and len(name) <= _MAX_NAME:
        return name
    digits = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9].rstrip('-._') or 'keyword'}-{digits}"


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
