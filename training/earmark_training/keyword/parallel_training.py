"""Several fine-tuning jobs in parallel, one per core: the exported network, and those of cross-validation."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.evaluation.peaks import find_peaks
from earmark_training.keyword.fine_tune import KEYWORD, fine_tune, score
from earmark_training.processes import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.sharedctypes import Synchronized

    from earmark_spotter.metadata import ModelMetadata
    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.keyword.fine_tune import FineTuneRecipe
    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.network import Network

_POLL_S = 0.2
_counter: Synchronized[int] | None = None  # in a worker: the batches that all workers have completed


@dataclass(frozen=True, slots=True)
class FineTuneJob:
    """Fine-tune without the recordings at the indices `left_out`; then score them and the held-out speech."""

    network: Network
    training_set: TrainingSet
    left_out: tuple[int, ...]
    recipe: FineTuneRecipe
    metadata: ModelMetadata


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """The result of a job.

    `left_out_scores` are the highest scores of the recordings that were left out, in the order of `left_out`;
    `peaks` are the scores of the keyword's peaks in the held-out speech.
    """

    network: Network
    left_out: tuple[int, ...]
    left_out_scores: NDArray[np.float64]
    peaks: NDArray[np.float64]


def run_jobs(jobs: Sequence[FineTuneJob], *, progress: Callable[..., Any] = tqdm) -> list[FineTuneResult]:
    """Run the jobs on all cores; return their results in order."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("i", 0)
    total = sum(job.recipe.steps for job in jobs)
    workers = min(len(jobs), os.cpu_count() or 1)
    with (
        ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_worker, initargs=(counter,)
        ) as pool,
        progress(total=total, desc="fine-tuning", unit="batch") as bar,
    ):
        futures = [pool.submit(_run, job) for job in jobs]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL_S)
            for future in done:
                future.result()
            bar.update(counter.value - bar.n)
        return [future.result() for future in futures]


def _start_worker(counter: Synchronized[int]) -> None:
    global _counter  # noqa: PLW0603  (the only way to pass a shared value to the workers of a pool)
    _counter = counter
    end_with_parent()
    torch.set_num_threads(1)


def _count_steps(steps: Iterable[int], **_: object) -> Iterator[int]:
    """Yield the steps, and count them in the shared counter."""
    for step in steps:
        yield step
        if _counter is not None:
            with _counter.get_lock():
                _counter.value += 1


def _run(job: FineTuneJob) -> FineTuneResult:
    training_set, corpus = job.training_set, job.training_set.corpus
    network = fine_tune(job.network, training_set.without(job.left_out), job.recipe, progress=_count_steps)
    left_out_scores = [_highest_score(network, corpus, training_set.recordings[i]) for i in job.left_out]
    peaks = _speech_peaks(network, corpus, training_set.held_out, job.metadata)
    return FineTuneResult(network, job.left_out, np.array(left_out_scores), peaks)


def _highest_score(network: Network, corpus: Corpus, recording: Recording) -> float:
    """Return the keyword's highest score in a recording that is followed by silence."""
    samples = np.pad(corpus.samples(recording), (0, SAMPLE_RATE_HZ // 2))
    return float(score(network, samples)[:, KEYWORD].max())


def _speech_peaks(
    network: Network, corpus: Corpus, speech: Iterable[Recording], metadata: ModelMetadata
) -> NDArray[np.float64]:
    """Return the scores of the keyword's peaks in speech, [n]."""
    (keyword,) = metadata.keyword_names
    peaks = [find_peaks(metadata, score(network, corpus.samples(r)), keyword)[1] for r in speech]
    return np.concatenate([np.zeros(0), *peaks])
