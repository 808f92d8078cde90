"""From recordings or the spelling of keywords to a model file: check, fine-tune, cross-validate, export."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.progress import SILENT, Progress
from earmark_spotter import SpotterModel

from earmark_training.data.corpus import hours
from earmark_training.evaluation.offsets import measure_offsets
from earmark_training.keyword.checkpoints import checkpoint_folder, unfinished
from earmark_training.keyword.examples_as_sound import false_alarm_sounds, missed_sounds
from earmark_training.keyword.fine_tune import FIRST_KEYWORD, STEPS_PER_HOUR, FineTuneRecipe
from earmark_training.keyword.held_out_conditions import CONDITIONS
from earmark_training.keyword.metadata import initial_metadata
from earmark_training.keyword.mistakes import read_mistakes, write_missed_words
from earmark_training.keyword.negatives import MAX_HOURS, find_negatives
from earmark_training.keyword.parallel_training import FINE_TUNING, FineTuneJob, run_jobs
from earmark_training.keyword.recorded_keywords import (
    add_missed_words,
    check_keywords_differ,
    read_recorded,
    without_outliers,
)
from earmark_training.keyword.recordings import RecordingsError
from earmark_training.keyword.report import write_report
from earmark_training.keyword.results import KeywordResults
from earmark_training.keyword.training_set import collect, expected_s, folds, voice_folds
from earmark_training.keyword.verifier_training import VERIFIER_BATCH_WORK, with_verifier
from earmark_training.keyword.word_warnings import warn_about
from earmark_training.model.onnx_file import check_streaming, load_network, pack
from earmark_training.model.speech_embedding import EmbeddingNetwork, EmbeddingShape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from earmark_spotter.metadata import ModelMetadata

    from earmark_training.data.corpus import Recording
    from earmark_training.keyword.mistakes import ReviewedClip
    from earmark_training.keyword.negatives import Negatives
    from earmark_training.keyword.parallel_training import FineTuneResult
    from earmark_training.keyword.recorded_keywords import RecordedKeyword
    from earmark_training.keyword.training_set import NeuralVoices, TrainingSet
    from earmark_training.model.network import Network
    from earmark_training.model.onnx_file import ServedNetwork

log = logging.getLogger(__name__)

_MIN_HELD_OUT_HOURS = 1.0
_STREAMED_RECORDINGS = 10
_COMPARING, _WRITING = "comparing the recordings", "writing the model and its report"
_COMPARING_S, _WRITING_S, _STEP_S = 15.0, 15.0, 0.6  # on two cores
_UTTERANCE_S, _SYNTHESIZED_HOURS = 12.0, 0.75


@dataclass(frozen=True, slots=True)
class KeywordRequest:
    """The keywords to make a model for, the recordings and voices to train on, and the file to write."""

    recordings: Mapping[str, Path | None]
    """The keywords, and the folder of each one's recordings, if there is one."""
    out: Path
    negatives: tuple[Path, ...] = ()
    voices: NeuralVoices | None = None
    synthesize: str | None = None
    """The language of the installed synthesizers; None to use none."""
    base: Path | None = None
    """The model to fine-tune; None to train a head on the speech embedding."""
    name: str | None = None
    version: str = "1.0.0"
    fa_per_hour: float = 0.5
    one_voice: bool = False
    """Whether to accept recordings of one voice."""
    mistakes: tuple[Path, ...] = ()
    """Folders of reviewed clips: those marked as wrong are negatives, those marked as missed recordings."""
    folds: int = 3
    """The folds of the cross-validation that measures the miss rate; 0 to skip it."""
    recipe: FineTuneRecipe = field(default_factory=FineTuneRecipe)


@dataclass(frozen=True, slots=True)
class _Sources:
    """What a model is made from: recordings of the keywords, reviewed clips, and speech without them."""

    recorded: Mapping[str, RecordedKeyword]
    mistakes: Sequence[ReviewedClip]
    negatives: Negatives

    @property
    def real_speech(self) -> bool:
        """Whether there is recorded speech without the keywords."""
        return bool(self.negatives.files)


def create_model(request: KeywordRequest, *, progress: Progress = SILENT) -> SpotterModel:
    """Write the model file, and beside it a report (`.report.html`) and its metrics (`.metrics.json`).

    Raises RecordingsError, SynthesisError or CorpusError for data that cannot be used, and ExportError for a
    base model that cannot be fine-tuned.
    """
    started = time.monotonic()
    sources = _read_sources(request, progress)
    base = SpotterModel.load(request.base).metadata
    _log_expectations(request, sources, base)
    body = load_network(request.base or _bundled_model())
    shape = EmbeddingShape(FIRST_KEYWORD + len(request.recordings))
    network = body if request.base else EmbeddingNetwork(shape)
    with tempfile.TemporaryDirectory(prefix="earmark-keyword-") as scratch:
        training_set = _collect(request, sources, body, Path(scratch), progress)
        metadata = _initial_metadata(request, sources, base, network)
        final, *cross_validation = run_jobs(
            _jobs(request, network, training_set, metadata), progress=progress
        )
        results = _results(request, sources, training_set, final, cross_validation)
        with progress.phase(_WRITING):
            model = _write_model(request.out, training_set, with_verifier(metadata), results)
            documents = [r.document() for r in results]
            sounds = {
                r.keyword: (
                    missed_sounds(training_set, document),
                    false_alarm_sounds(training_set, r, request.recipe.seed),
                )
                for r, document in zip(results, documents, strict=True)
            }
    about = {
        "model": model.metadata.name,
        "version": model.metadata.version,
        "sha256": model.sha256,
        "seed": request.recipe.seed,
        "seconds": round(time.monotonic() - started),
    }
    document = documents[0] | about if len(documents) == 1 else {"keywords": documents} | about
    write_report(document, request.out, sounds)
    shutil.rmtree(unfinished(request.out))
    return model


def _read_sources(request: KeywordRequest, progress: Progress) -> _Sources:
    """Read the recordings and list the negatives. Raises RecordingsError if they cannot be used."""
    keywords = tuple(request.recordings)
    mistakes = read_mistakes(request.mistakes, keywords)
    if not request.negatives and not all(clip.is_missed for clip in mistakes):
        raise RecordingsError("--mistakes requires --negatives: hours of speech without the keyword")
    with progress.phase("reading the recordings"):
        recorded = {
            k: read_recorded(folder, with_voices=request.voices is not None, one_voice=request.one_voice)
            for k, folder in request.recordings.items()
        }
        check_keywords_differ(recorded)
        of_keywords = [r.path for k in recorded.values() for part in (k.used, k.left_out) for r in part]
        of_keywords += [clip.path for clip in mistakes if clip.is_missed]
        negatives = find_negatives(
            request.negatives,
            keywords,
            homophones=() if request.voices is None else request.voices.homophones(),
            recordings=of_keywords,
            seed=request.recipe.seed,
        )
    return _Sources(recorded, mistakes, negatives)


def _collect(
    request: KeywordRequest, sources: _Sources, body: Network, scratch: Path, progress: Progress
) -> TrainingSet:
    """Return the training set, decoded and synthesized into the folder `scratch`, without outliers."""
    recorded = sources.recorded
    for keyword, of_keyword in recorded.items():
        add_missed_words(of_keyword, write_missed_words(sources.mistakes, keyword, scratch / keyword))
    progress.plan(_expected_s(request, sources))
    training_set = collect(
        {k: [r.path for r in recorded[k].used] for k in recorded},
        sources.negatives.files,
        scratch,
        language=request.synthesize,
        voices=request.voices,
        helpers=request.base is None,
        mistakes=sources.mistakes,
        seed=request.recipe.seed,
        progress=progress,
    )
    with progress.phase(_COMPARING):
        training_set = without_outliers(body, training_set, recorded)
    _log_amounts(training_set, real_speech=sources.real_speech)
    return training_set


def _initial_metadata(
    request: KeywordRequest, sources: _Sources, base: ModelMetadata, network: ServedNetwork
) -> ModelMetadata:
    """Return the metadata of the model before its thresholds and its accuracy are known."""
    return initial_metadata(
        tuple(request.recordings),
        name=request.name,
        version=request.version,
        base=base,
        shape=network.shape,
        embedding=isinstance(network, EmbeddingNetwork),
        recorded=[k for k, of_keyword in sources.recorded.items() if of_keyword.used],
        real_speech=sources.real_speech,
        synthesized=bool(request.synthesize) or not (sources.real_speech or request.voices),
        neural_voices=bool(request.voices),
    )


def _jobs(
    request: KeywordRequest, network: ServedNetwork, training_set: TrainingSet, metadata: ModelMetadata
) -> list[FineTuneJob]:
    """Return the training of the model's network, and those of the cross-validation."""
    checkpoints = checkpoint_folder(request.out, training_set, request.recipe)
    return [
        FineTuneJob(
            network,
            training_set,
            left_out,
            request.recipe,
            metadata,
            checkpoints / f"{number}.checkpoint",
        )
        for number, left_out in enumerate(((), *_folds(training_set, request)))
    ]


def _results(
    request: KeywordRequest,
    sources: _Sources,
    training_set: TrainingSet,
    final: FineTuneResult,
    cross_validation: Sequence[FineTuneResult],
) -> list[KeywordResults]:
    """Return the results of each keyword."""
    files = [r.path for of_keyword in sources.recorded.values() for r in of_keyword.used] or [
        Path(f"{r.text} by {r.speaker}") for r in training_set.synthesized
    ]
    return [
        KeywordResults(
            keyword=keyword,
            fa_per_hour=request.fa_per_hour,
            files=files,
            left_out=of_keyword.left_out,
            training_set=training_set,
            real_speech=sources.real_speech,
            final=final,
            folds=cross_validation,
        )
        for keyword, of_keyword in sources.recorded.items()
    ]


def _write_model(
    out: Path, training_set: TrainingSet, metadata: ModelMetadata, results: Sequence[KeywordResults]
) -> SpotterModel:
    """Write the model file, with its offsets, thresholds and metrics. Raises ExportError if it differs."""
    final = results[0].final
    graph, state = final.graph, final.network.silent_state().numpy()
    model = pack(graph, state, metadata, encoded_verifier=final.verifier)
    streamed = training_set.measured[:_STREAMED_RECORDINGS]
    check_streaming(final.network, model, [training_set.corpus.samples(r) for r in streamed])
    metadata = measure_offsets(model, training_set.corpus, _clips_for_offsets(training_set))
    metadata = replace(
        metadata,
        keywords={r.keyword: replace(metadata.keywords[r.keyword], threshold=r.threshold) for r in results},
        metrics=tuple(m for r in results for m in r.metrics(alone=len(results) == 1)),
    )
    return pack(graph, state, metadata, out, encoded_verifier=final.verifier)


def _expected_s(request: KeywordRequest, sources: _Sources) -> dict[str, float]:
    """Return the phases of `create_model`, each with the seconds that it takes on two cores."""
    negatives = sources.negatives
    recordings = {k: [r.path for r in of_keyword.used] for k, of_keyword in sources.recorded.items()}
    expected = expected_s(recordings, negatives.files, language=request.synthesize, voices=request.voices)
    networks = 1 + (request.folds if any(recordings.values()) else min(1, request.folds))
    negative_hours = min(MAX_HOURS, len(negatives.files) * _UTTERANCE_S / 3600) or _SYNTHESIZED_HOURS
    # Speech is mined in the rounds of the first network's training, and once for the verifier.
    mined_hours = min(request.recipe.mined_hours, 0.7 * negative_hours)
    scored_hours = 0.3 * len(CONDITIONS) * negative_hours + (request.recipe.rounds + 1) * mined_hours
    held_out_and_mined = networks * scored_hours * STEPS_PER_HOUR
    steps = request.recipe.steps + request.recipe.verifier_batches * VERIFIER_BATCH_WORK
    return expected | {
        _COMPARING: _COMPARING_S,
        FINE_TUNING: (networks * steps + held_out_and_mined) * _STEP_S / min(2, networks),
        _WRITING: _WRITING_S,
    }


def _folds(training_set: TrainingSet, request: KeywordRequest) -> list[tuple[int, ...]]:
    """Return the examples that each network of the cross-validation is trained without."""
    seed = request.recipe.seed
    if not training_set.recordings:  # one fold costs no time on two cores
        return voice_folds(training_set.synthesized, min(1, request.folds), seed)
    return folds(len(training_set.recordings), min(request.folds, len(training_set.recordings)), seed)


def _clips_for_offsets(training_set: TrainingSet) -> list[Recording]:
    """Return people's recordings of each keyword, or those of synthetic voices if there are none."""
    recorded = {r.text for r in training_set.recordings}
    return [*training_set.recordings, *(r for r in training_set.synthesized if r.text not in recorded)]


def _bundled_model() -> Path:
    return Path(str(resources.files("earmark_spotter") / "models" / "default.onnx"))


def _log_expectations(request: KeywordRequest, sources: _Sources, base: ModelMetadata) -> None:
    """Log what is to be expected of the keywords, and which data are left out."""
    keywords, negatives = tuple(request.recordings), sources.negatives
    warn_about(keywords, request.voices, base)
    for keyword in set(keywords) & set(base.keyword_names):
        log.info("%s knows %r already; this makes another model for it", base.name, keyword)
    if negatives.left_out:
        log.info(
            "utterances that are left out, with %s%s in their transcript: %d",
            " or ".join(map(repr, keywords)),
            ", or a word that sounds the same," if request.voices else "",
            negatives.left_out,
        )
    if negatives.recordings:
        log.info(
            "files of --negatives that are left out, since they are recordings of the keyword: %d",
            negatives.recordings,
        )
    voices_alone = [k for k, folder in request.recordings.items() if folder is None]
    if 0 < len(voices_alone) < len(keywords):
        log.info(
            "keywords without a folder of recordings, which voices alone read: %s",
            ", ".join(map(repr, voices_alone)),
        )


def _log_amounts(training_set: TrainingSet, *, real_speech: bool) -> None:
    """Log the amount of training data, with a warning if there is too little speech."""
    log.info(
        "recordings: %d; synthesized keywords: %d; synthesized confusables: %d; "
        "speech: %.1f h for training, %.1f h held out",
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
