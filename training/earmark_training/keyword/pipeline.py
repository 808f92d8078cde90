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
from earmark_training.keyword.recording_checks import check_voices, exclude_outliers, warn_if_few
from earmark_training.keyword.recordings import (
    MIN_RECORDINGS,
    KeywordRecording,
    RecordingsError,
    RejectedRecording,
    list_rejected,
    read_recording,
    read_recordings,
)
from earmark_training.keyword.report import write_report
from earmark_training.keyword.results import KeywordResults
from earmark_training.keyword.training_set import TrainingSet, collect, expected_s, folds, voice_folds
from earmark_training.keyword.verifier_training import VERIFIER_BATCH_WORK, with_verifier
from earmark_training.keyword.word_warnings import warn_about
from earmark_training.model.onnx_file import check_streaming, load_network, pack
from earmark_training.model.speech_embedding import EmbeddingNetwork, EmbeddingShape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from earmark_training.data.corpus import Recording
    from earmark_training.keyword.negatives import Negatives
    from earmark_training.keyword.training_set import NeuralVoices
    from earmark_training.model.network import Network

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


@dataclass(slots=True)
class _Recorded:
    """The recordings of one keyword: those that are used, and those that are left out."""

    used: list[KeywordRecording]
    left_out: list[RejectedRecording]


def create_model(request: KeywordRequest, *, progress: Progress = SILENT) -> SpotterModel:
    """Write the model file, and beside it a report (`.report.html`) and its metrics (`.metrics.json`).

    Raises RecordingsError, SynthesisError or CorpusError for data that cannot be used, and ExportError for a
    base model that cannot be fine-tuned.
    """
    started = time.monotonic()
    keywords, seed = tuple(request.recordings), request.recipe.seed
    mistakes = read_mistakes(request.mistakes, keywords)
    if not request.negatives and not all(clip.is_missed for clip in mistakes):
        raise RecordingsError("--mistakes requires --negatives: hours of speech without the keyword")
    with progress.phase("reading the recordings"):
        recorded = {k: _read(folder, request) for k, folder in request.recordings.items()}
        of_keywords = [r.path for k in recorded.values() for part in (k.used, k.left_out) for r in part]
        of_keywords += [clip.path for clip in mistakes if clip.is_missed]
        negatives = find_negatives(request.negatives, keywords, recordings=of_keywords, seed=seed)
    base = SpotterModel.load(request.base)
    if request.voices:
        warn_about(request.voices, base.metadata)
    for keyword in set(keywords) & set(base.metadata.keyword_names):
        log.info("%s knows %r already; this makes another model for it", base.metadata.name, keyword)
    body = load_network(request.base or _bundled_model())
    shape = EmbeddingShape(FIRST_KEYWORD + len(keywords))
    network = body if request.base else EmbeddingNetwork(shape)
    _log_left_out(request.recordings, negatives)
    with tempfile.TemporaryDirectory(prefix="earmark-keyword-") as scratch:
        for keyword, of_keyword in recorded.items():
            _add_missed_words(of_keyword, write_missed_words(mistakes, keyword, Path(scratch) / keyword))
        progress.plan(_expected_s(request, recorded, negatives))
        training_set = collect(
            {k: [r.path for r in recorded[k].used] for k in keywords},
            negatives.files,
            Path(scratch),
            language=request.synthesize,
            voices=request.voices,
            helpers=request.base is None,
            mistakes=mistakes,
            seed=seed,
            progress=progress,
        )
        with progress.phase(_COMPARING):
            training_set = _without_outliers(body, training_set, recorded, request)
        real_speech = bool(negatives.files)
        _log_amounts(training_set, real_speech=real_speech)
        metadata = initial_metadata(
            keywords,
            name=request.name,
            version=request.version,
            base=base.metadata,
            shape=network.shape,
            embedding=isinstance(network, EmbeddingNetwork),
            recorded=[k for k in keywords if recorded[k].used],
            real_speech=real_speech,
            synthesized=bool(request.synthesize) or not (real_speech or request.voices),
            neural_voices=bool(request.voices),
        )
        checkpoints = checkpoint_folder(request.out, training_set, request.recipe)
        jobs = [
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
        final, *cross_validation = run_jobs(jobs, progress=progress)
        files = [r.path for k in keywords for r in recorded[k].used] or [
            Path(f"{r.text} by {r.speaker}") for r in training_set.synthesized
        ]
        results = {
            k: KeywordResults(
                keyword=k,
                fa_per_hour=request.fa_per_hour,
                files=files,
                left_out=recorded[k].left_out,
                training_set=training_set,
                real_speech=real_speech,
                final=final,
                folds=cross_validation,
            )
            for k in keywords
        }
        with progress.phase(_WRITING):
            graph, state = final.graph, final.network.silent_state().numpy()
            metadata = with_verifier(metadata)
            model = pack(graph, state, metadata, encoded_verifier=final.verifier)
            streamed = training_set.measured[:_STREAMED_RECORDINGS]
            check_streaming(final.network, model, [training_set.corpus.samples(r) for r in streamed])
            metadata = measure_offsets(model, training_set.corpus, _clips_for_offsets(training_set))
            metadata = replace(
                metadata,
                keywords={k: replace(metadata.keywords[k], threshold=results[k].threshold) for k in keywords},
                metrics=tuple(m for k in keywords for m in results[k].metrics(alone=len(keywords) == 1)),
            )
            model = pack(graph, state, metadata, request.out, encoded_verifier=final.verifier)
            documents = [r.document() for r in results.values()]
            sounds = {
                k: (missed_sounds(training_set, document), false_alarm_sounds(training_set, results[k], seed))
                for k, document in zip(keywords, documents, strict=True)
            }
    about = {
        "model": metadata.name,
        "version": metadata.version,
        "sha256": model.sha256,
        "seed": seed,
        "seconds": round(time.monotonic() - started),
    }
    document = documents[0] | about if len(documents) == 1 else {"keywords": documents} | about
    write_report(document, request.out, sounds)
    shutil.rmtree(unfinished(request.out))
    return model


def _expected_s(
    request: KeywordRequest, recorded: Mapping[str, _Recorded], negatives: Negatives
) -> dict[str, float]:
    """Return the phases of `create_model`, each with the seconds that it takes on two cores."""
    recordings = {k: [r.path for r in recorded[k].used] for k in recorded}
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


def _read(folder: Path | None, request: KeywordRequest) -> _Recorded:
    """Return the recordings of one keyword. Raises RecordingsError if they cannot be used."""
    if folder is None:
        return _Recorded([], [])
    used, rejected = read_recordings(folder, least=1 if request.voices else MIN_RECORDINGS)
    if rejected:
        log.warning("recordings that are left out: %d\n%s", len(rejected), list_rejected(rejected))
    if not request.voices:
        if not request.one_voice:
            check_voices(used, folder)
        warn_if_few(len(used))
    return _Recorded(used, rejected)


def _add_missed_words(recorded: _Recorded, paths: Sequence[Path]) -> None:
    """Add recordings of words that a model missed, unless they are there already."""
    known = {recording.samples.tobytes() for recording in recorded.used}
    for path in paths:
        recording = read_recording(path)
        if isinstance(recording, RejectedRecording):
            log.warning("a missed word is left out:\n%s", list_rejected([recording]))
            recorded.left_out.append(recording)
        elif recording.samples.tobytes() not in known:
            recorded.used.append(recording)


def _without_outliers(
    network: Network, training_set: TrainingSet, recorded: Mapping[str, _Recorded], request: KeywordRequest
) -> TrainingSet:
    """Return the training set without outliers among the recordings, which move to those left out."""
    first, excluded = 0, []
    for keyword, folder in request.recordings.items():
        of_keyword = recorded[keyword]
        if folder is not None and len(of_keyword.used) >= MIN_RECORDINGS:
            found = exclude_outliers(network, of_keyword.used, training_set, folder)
            # A person has confirmed the words that were missed.
            outliers = {i: r for i, r in found.items() if r.path.is_relative_to(folder)}
            excluded += [first + i for i in outliers]
            first += len(of_keyword.used)
            of_keyword.used = [r for i, r in enumerate(of_keyword.used) if i not in outliers]
            of_keyword.left_out += outliers.values()
        else:
            first += len(of_keyword.used)
    return training_set.without(excluded) if excluded else training_set


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


def _log_left_out(recordings: Mapping[str, Path | None], negatives: Negatives) -> None:
    """Log the negatives that are left out, and the keywords without recordings if others have some."""
    if negatives.left_out:
        log.info(
            "utterances that are left out, with %s in their transcript: %d",
            " or ".join(map(repr, recordings)),
            negatives.left_out,
        )
    if negatives.recordings:
        log.info(
            "files of --negatives that are left out, since they are recordings of the keyword: %d",
            negatives.recordings,
        )
    voices_alone = [k for k, folder in recordings.items() if folder is None]
    if 0 < len(voices_alone) < len(recordings):
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
