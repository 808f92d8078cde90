"""From recordings of a keyword to its model file: check, fine-tune, cross-validate, and export."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark_spotter import SpotterModel
from tqdm import tqdm

from earmark_training.data.corpus import hours
from earmark_training.evaluation.offsets import measure_offsets
from earmark_training.keyword.fine_tune import FineTuneRecipe
from earmark_training.keyword.metadata import initial_metadata
from earmark_training.keyword.mistakes import add_mistakes
from earmark_training.keyword.negatives import find_negatives
from earmark_training.keyword.parallel_training import FineTuneJob, run_jobs
from earmark_training.keyword.recording_checks import check_voices, exclude_outliers, warn_if_few
from earmark_training.keyword.recordings import list_rejected, read_recordings
from earmark_training.keyword.report import write_report
from earmark_training.keyword.results import KeywordResults
from earmark_training.keyword.training_set import TrainingSet, collect, folds
from earmark_training.model.onnx_file import check_streaming, load_network, pack, to_onnx

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_MIN_HELD_OUT_HOURS = 1.0
_STREAMED_RECORDINGS = 10


@dataclass(frozen=True, slots=True)
class KeywordRequest:
    """The keyword to make a model for, the recordings to train on, and the file to write."""

    keyword: str
    recordings: Path
    out: Path
    negatives: tuple[Path, ...] = ()
    synthesize: str | None = None
    """The language of the synthesizers; None to use none."""
    base: Path | None = None
    """The model to fine-tune; None for the bundled one."""
    name: str | None = None
    version: str = "1.0.0"
    fa_per_hour: float = 0.5
    one_voice: bool = False
    """Whether to accept recordings of one voice."""
    mistakes: tuple[Path, ...] = ()
    """Folders of reviewed clips, of which those marked as wrong are hard negatives."""
    folds: int = 3
    """The folds of the cross-validation that measures the miss rate; 0 to skip it."""
    recipe: FineTuneRecipe = field(default_factory=FineTuneRecipe)


def create_model(request: KeywordRequest, *, progress: Callable[..., Any] = tqdm) -> SpotterModel:
    """Write the model file, and beside it a report (`.report.html`) and its metrics (`.metrics.json`).

    Raises RecordingsError, SynthesisError or CorpusError for data that cannot be used, and ExportError for a
    base model that cannot be fine-tuned.
    """
    started = time.monotonic()
    keyword, seed = request.keyword, request.recipe.seed
    recordings, rejected = read_recordings(request.recordings)
    if rejected:
        log.warning("%d recordings are left out:\n%s", len(rejected), list_rejected(rejected))
    if not request.one_voice:
        check_voices(recordings, request.recordings)
    warn_if_few(len(recordings))
    base = SpotterModel.load(request.base)
    if keyword in base.metadata.keyword_names:
        log.info("%s knows %r already; this makes another model for it", base.metadata.name, keyword)
    network = load_network(request.base or _bundled_model())
    negatives = find_negatives(request.negatives, keyword, seed=seed)
    if negatives.left_out:
        log.info("%d utterances with %r in their transcript are left out", negatives.left_out, keyword)
    with tempfile.TemporaryDirectory(prefix="earmark-keyword-") as scratch:
        negatives = add_mistakes(negatives, request.mistakes)
        training_set = collect(
            keyword,
            [r.path for r in recordings],
            negatives.files,
            Path(scratch),
            language=request.synthesize,
            seed=seed,
            progress=progress,
        )
        outliers = exclude_outliers(network, recordings, training_set, request.recordings)
        training_set = training_set.without(outliers)
        recordings = [r for i, r in enumerate(recordings) if i not in outliers]
        real_speech = bool(negatives.files)
        _log_amounts(training_set, real_speech=real_speech)
        metadata = initial_metadata(
            keyword,
            name=request.name,
            version=request.version,
            base=base.metadata,
            shape=network.shape,
            real_speech=real_speech,
            synthesized=bool(request.synthesize) or not real_speech,
        )
        jobs = [
            FineTuneJob(network, training_set, left_out, request.recipe, metadata)
            for left_out in ((), *folds(len(recordings), request.folds, seed))
        ]
        final, *cross_validation = run_jobs(jobs, progress=progress)
        results = KeywordResults(
            keyword=keyword,
            fa_per_hour=request.fa_per_hour,
            recordings=recordings,
            left_out=[*rejected, *outliers.values()],
            training_set=training_set,
            real_speech=real_speech,
            final=final,
            folds=cross_validation,
        )
        graph, state = to_onnx(final.network), final.network.silent_state().numpy()
        model = pack(graph, state, metadata)
        streamed = training_set.recordings[:_STREAMED_RECORDINGS]
        check_streaming(final.network, model, [training_set.corpus.samples(r) for r in streamed])
        metadata = measure_offsets(model, training_set.corpus)
        info = replace(metadata.keywords[keyword], threshold=results.threshold)
        metadata = replace(metadata, keywords={keyword: info}, metrics=results.metrics())
        model = pack(graph, state, metadata, request.out)
        document = results.document()
    document |= {
        "model": metadata.name,
        "version": metadata.version,
        "sha256": model.sha256,
        "seed": seed,
        "seconds": round(time.monotonic() - started),
    }
    write_report(document, request.out)
    return model


def _bundled_model() -> Path:
    return Path(str(resources.files("earmark_spotter") / "models" / "default.onnx"))


def _log_amounts(training_set: TrainingSet, *, real_speech: bool) -> None:
    """Log the amount of training data, with a warning if there is too little speech."""
    log.info(
        "%d recordings, %d synthesized keywords, %d synthesized confusables; "
        "%.1f h of speech for training, %.1f h held out",
        len(training_set.recordings),
        len(training_set.synthesized),
        len(training_set.confusables),
        hours(training_set.speech),
        training_set.held_out_hours,
    )
    if not real_speech:
        log.warning(
            "no recorded speech without the keyword was given, so synthesized speech is used instead. False "
            "alarms in people's speech cannot be measured, and there will be more of them: use --negatives"
        )
    elif training_set.held_out_hours < _MIN_HELD_OUT_HOURS:
        log.warning(
            "%.1f h of held-out speech is little, so the threshold is extrapolated: add --negatives",
            training_set.held_out_hours,
        )
