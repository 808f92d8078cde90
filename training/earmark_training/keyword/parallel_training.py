"""Several tunings at once, one a core: the one that is exported, and those that say how well it may hear."""

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
from earmark_training.keyword.fine_tune import KEYWORD, scores, tune
from earmark_training.processes import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from earmark_spotter.metadata import ModelMetadata
    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.keyword.fine_tune import Tuning
    from earmark_training.keyword.material import Material
    from earmark_training.model.network import Network

_POLL_S = 0.2
_counter: Any = None  # of the worker's process: batches done by all workers


@dataclass(frozen=True, slots=True)
class Job:
    """A tuning without the takes in `left_out`, and then the hearing of those and of the held-out speech."""

    network: Network
    material: Material
    left_out: tuple[int, ...]
    tuning: Tuning
    metadata: ModelMetadata


@dataclass(frozen=True, slots=True)
class Tuned:
    """What became of a job.

    `left_out`: the numbers of the takes that it was not taught, and `left_out_scores` what they score.
    `peaks`: what the held-out speech scores, by peaks.
    """

    network: Network
    left_out: tuple[int, ...]
    left_out_scores: NDArray[np.float64]
    peaks: NDArray[np.float64]


def run_jobs(jobs: Sequence[Job], *, progress: Callable[..., Any] = tqdm) -> list[Tuned]:
    """Do the jobs on all cores; return what became of them, in order."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("i", 0)
    total = sum(job.tuning.steps for job in jobs)
    workers = min(len(jobs), os.cpu_count() or 1)
    with (
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(counter,)) as pool,
        progress(total=total, desc="tuning", unit="batch") as bar,
    ):
        futures = [pool.submit(_run, job) for job in jobs]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL_S)
            for future in done:
                future.result()
            bar.update(counter.value - bar.n)
        return [future.result() for future in futures]


def _begin(counter: Any) -> None:
    global _counter  # noqa: PLW0603  (the one way to hand a shared value to a pool's worker)
    _counter = counter
    end_with_parent()
    torch.set_num_threads(1)


def _counted(steps: Iterable[int], **_: object) -> Iterator[int]:
    for step in steps:
        yield step
        if _counter is not None:
            with _counter.get_lock():
                _counter.value += 1


def _run(job: Job) -> Tuned:
    material = job.material
    network = tune(job.network, material.without(job.left_out), job.tuning, progress=_counted)
    left_out_scores = [take_score(network, material.corpus, material.takes[i]) for i in job.left_out]
    peaks = speech_peaks(network, material.corpus, material.held_out, job.metadata)
    return Tuned(network, job.left_out, np.array(left_out_scores), peaks)


def take_score(network: Network, corpus: Corpus, take: Recording) -> float:
    """Return the keyword's highest score in a recording that is followed by silence."""
    samples = np.pad(corpus.samples(take), (0, SAMPLE_RATE_HZ // 2))
    return float(scores(network, samples)[:, KEYWORD].max())


def speech_peaks(
    network: Network, corpus: Corpus, speech: Iterable[Recording], metadata: ModelMetadata
) -> NDArray[np.float64]:
    """Return the scores of the keyword's peaks in speech."""
    (keyword,) = metadata.keyword_names
    found = [find_peaks(metadata, scores(network, corpus.samples(r)), keyword)[1] for r in speech]
    return np.concatenate([np.zeros(0), *found])
