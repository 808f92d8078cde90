"""Several fine-tuning jobs in parallel, one per core: the exported network, and those of cross-validation."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from earmark_audio.progress import SILENT, Progress
from earmark_spotter import final_scores

from earmark_training.data.corpus import SAMPLE_RATE_HZ, hours
from earmark_training.evaluation.peaks import find_peaks
from earmark_training.keyword.fine_tune import STEPS_PER_HOUR, fine_tune, work
from earmark_training.keyword.head_training import train_head
from earmark_training.keyword.held_out_conditions import CONDITIONS, held_out_surroundings
from earmark_training.keyword.verifier_training import train_verifier, verifier_work, with_verifier
from earmark_training.model import encoded_verifier
from earmark_training.model.onnx_file import pack, to_onnx
from earmark_training.model.speech_embedding import EmbeddingNetwork
from earmark_training.processes import worker_pool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.sharedctypes import Synchronized
    from pathlib import Path

    from earmark_spotter import SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from numpy.typing import NDArray
    from onnx import ModelProto

    from earmark_training.data.corpus import Recording
    from earmark_training.keyword.fine_tune import FineTuneRecipe
    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.onnx_file import ServedNetwork

FINE_TUNING = "fine-tuning"
"""The phase of `run_jobs`."""

_POLL_S = 0.2
_ALARMS = 12
# In a worker: the work that all workers have done, and that of an interrupted run before.
_done: Synchronized[float] | None = None
_done_before: Synchronized[float] | None = None


@dataclass(frozen=True, slots=True)
class FineTuneJob:
    """Fine-tune without the examples at the indices `left_out`; then score them and the held-out speech."""

    network: ServedNetwork
    training_set: TrainingSet
    left_out: tuple[int, ...]
    recipe: FineTuneRecipe
    metadata: ModelMetadata
    checkpoint: Path | None = None
    """The file in which an interrupted training of a head is kept."""


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """The result of a job.

    `graph` is the exported network, and `verifier` the ONNX file of the verifier. `left_out_scores` are the
    highest final scores of the examples that were left out, in the order of `left_out`, each of its own
    keyword. `peaks` are the final scores of each keyword's peaks in the held-out speech, by condition and
    keyword; `alarms` are the highest of them with their recordings, by keyword.
    """

    network: ServedNetwork
    graph: ModelProto
    verifier: bytes
    left_out: tuple[int, ...]
    left_out_scores: NDArray[np.float64]
    peaks: dict[str, dict[str, NDArray[np.float64]]]
    alarms: dict[str, list[Alarm]]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A peak of a keyword's score in speech without it, and the sample at which it is."""

    score: float
    recording: Recording
    condition: str
    middle: int


def run_jobs(jobs: Sequence[FineTuneJob], *, progress: Progress = SILENT) -> list[FineTuneResult]:
    """Run the jobs on all cores; return their results in order."""
    context = multiprocessing.get_context("spawn")
    done, done_before = context.Value("d", 0.0), context.Value("d", 0.0)
    workers = min(len(jobs), os.cpu_count() or 1)
    with (
        worker_pool(workers, method="spawn", initializer=_start_worker, initargs=(done, done_before)) as pool,
        progress.phase(FINE_TUNING, total=sum(map(_work, jobs))) as phase,
    ):
        futures = [pool.submit(_run, job) for job in jobs]
        waiting, skipped = set(futures), 0.0
        while waiting:
            ended, waiting = wait(waiting, timeout=_POLL_S)
            for future in ended:
                future.result()
            before = done_before.value
            phase.skip(before - skipped)
            skipped = before
            phase.set(before + done.value)
        return [future.result() for future in futures]


def _start_worker(done: Synchronized[float], done_before: Synchronized[float]) -> None:
    global _done, _done_before
    _done, _done_before = done, done_before
    torch.set_num_threads(1)


def _count(amount: float) -> None:
    """Count work that was done."""
    _add(_done, amount)


def _skip(amount: float) -> None:
    """Count work that an interrupted run had done before."""
    _add(_done_before, amount)


def _add(counter: Synchronized[float] | None, amount: float) -> None:
    if counter is not None:
        with counter.get_lock():
            counter.value += amount


def _work(job: FineTuneJob) -> float:
    """Return the work of a job, in steps of training."""
    scored_hours = len(CONDITIONS) * job.training_set.held_out_hours
    trained = work(job.training_set, job.recipe) + verifier_work(job.training_set, job.recipe)
    return trained + scored_hours * STEPS_PER_HOUR


def _run(job: FineTuneJob) -> FineTuneResult:
    training_set = job.training_set
    learned_from = training_set.without(job.left_out)
    network: ServedNetwork
    if isinstance(job.network, EmbeddingNetwork):
        network = train_head(
            job.network, learned_from, job.recipe, checkpoint=job.checkpoint, count=_count, skip=_skip
        )
    else:
        network = fine_tune(job.network, learned_from, job.recipe, count=_count)
    graph, state = to_onnx(network), network.silent_state().numpy()
    verifier = encoded_verifier.to_onnx(
        train_verifier(network, pack(graph, state, job.metadata), learned_from, job.recipe, count=_count)
    )
    model = pack(graph, state, with_verifier(job.metadata), encoded_verifier=verifier)
    examples = training_set.measured
    left_out_scores = [_highest_score(model, training_set, examples[i]) for i in job.left_out]
    surroundings = held_out_surroundings(training_set)
    peaks: dict[str, dict[str, NDArray[np.float64]]] = {}
    alarms: dict[str, list[Alarm]] = {k: [] for k in training_set.keywords}
    for condition in CONDITIONS:
        found: dict[str, list[NDArray[np.float64]]] = {k: [np.zeros(0)] for k in training_set.keywords}
        for recording in training_set.held_out:
            scores = final_scores(model, surroundings.place(condition, recording, job.recipe.seed))
            for keyword in training_set.keywords:
                middles, heights = find_peaks(job.metadata, scores, keyword)
                found[keyword].append(heights.astype(np.float64))
                alarms[keyword] += [
                    Alarm(float(h), recording, condition, int(m))
                    for m, h in zip(middles, heights, strict=True)
                ]
            _count(hours([recording]) * STEPS_PER_HOUR)
        peaks[condition] = {k: np.concatenate(p) for k, p in found.items()}
    highest = {k: sorted(a, key=lambda x: -x.score)[:_ALARMS] for k, a in alarms.items()}
    return FineTuneResult(network, graph, verifier, job.left_out, np.array(left_out_scores), peaks, highest)


def _highest_score(model: SpotterModel, training_set: TrainingSet, recording: Recording) -> float:
    """Return the highest final score of its own keyword in a recording that is followed by silence."""
    samples = np.pad(training_set.corpus.samples(recording), (0, SAMPLE_RATE_HZ))
    return float(final_scores(model, samples)[:, model.metadata.labels.index(recording.text)].max())
