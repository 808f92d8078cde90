from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from earmark_training.data.corpus import Corpus
from earmark_training.errors import OutputError, RecipeError, WorkerError
from earmark_training.model import train as training
from earmark_training.model.checkpoint import load_trained
from earmark_training.model.train import train
from support.tiny_training import RECIPE
from torch.multiprocessing.spawn import ProcessExitedException

TESTS = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from earmark_training.data.corpus import Corpus
from earmark_training.model.train import train
from support.tiny_training import RECIPE, use_few_synthetic_sounds

if __name__ == "__main__":
    use_few_synthetic_sounds()
    train(Corpus(Path(sys.argv[1])), RECIPE, Path(sys.argv[2]))
"""


@pytest.mark.usefixtures("caches")
def test_training_without_clips_of_a_keyword_is_rejected(corpus: Corpus, tmp_path: Path):
    with pytest.raises(RecipeError, match="no training clips of: stop"):
        train(corpus, replace(RECIPE, keywords=("yes", "stop")), tmp_path)


def test_what_is_wrong_is_said_before_the_features_are_made(
    corpus: Corpus, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "feature_cache", lambda *_: pytest.fail("features"))
    with pytest.raises(RecipeError, match="another shape"):
        train(corpus, RECIPE, tmp_path, model_path)
    select = corpus.select
    monkeypatch.setattr(
        corpus, "select", lambda kind, split: [] if split == "validation" else select(kind, split)
    )
    with pytest.raises(RecipeError, match="no validation clips"):
        train(corpus, RECIPE, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("caches")
def test_a_checkpoint_that_cannot_be_written_ends_the_training_with_its_message(
    corpus: Corpus, tmp_path: Path
):
    (tmp_path / "checkpoint.pt.part").mkdir()
    with pytest.raises(OutputError, match=r"checkpoint\.pt cannot be written: .*Repeat the command"):
        train(corpus, replace(RECIPE, cycles=(1, 1)), tmp_path)


def test_a_run_writes_its_log_its_metrics_and_its_curves(run: Path):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["epochs"] == len(metrics["history"]) == RECIPE.epochs
    assert metrics["validation_accuracy"] > 0.7  # an unknown word as short as a sweep may pass for silence
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert f"epoch {RECIPE.epochs} of" in (run / "train.log").read_text()


def test_a_run_that_was_killed_resumes_to_the_same_weights(corpus: Corpus, run: Path, tmp_path: Path):
    script, out = tmp_path / "training.py", tmp_path / "killed"
    script.write_text(PROGRAM)
    log = out / "train.log"
    paths = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, str(script), str(corpus.folder), str(out)]
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        while not (log.is_file() and "epoch 2 of" in log.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        # Its processes share its standard error, which ends when the last of them ends.
        process.communicate(timeout=60)
    assert f"epoch {RECIPE.epochs} of" not in log.read_text()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr  # semaphores
    uninterrupted, resumed = load_trained(run).network, load_trained(out).network
    for name, value in uninterrupted.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-6, rtol=1e-5, msg=name)
    with pytest.raises(RecipeError, match="another recipe"):
        train(corpus, replace(RECIPE, seed=9), out)
    shutil.copytree(corpus.folder, tmp_path / "other", ignore=shutil.ignore_patterns("mel-*"))
    with (tmp_path / "other" / "index.json").open("a") as index:
        index.write("\n")
    with pytest.raises(RecipeError, match="another corpus"):
        train(Corpus(tmp_path / "other"), RECIPE, out)


def test_a_finished_run_goes_on_with_more_epochs(corpus: Corpus, run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "longer")
    *first, last = RECIPE.cycles
    train(corpus, replace(RECIPE, cycles=(*first, last + 1)), tmp_path / "longer")
    longer = json.loads((tmp_path / "longer" / "metrics.json").read_text())["history"]
    assert longer[:-1] == json.loads((run / "metrics.json").read_text())["history"]
    assert load_trained(tmp_path / "longer").recipe.epochs == RECIPE.epochs + 1


@pytest.mark.usefixtures("caches")
def test_a_process_that_is_killed_is_an_error_that_says_what_to_do(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed:
        def join(self, timeout: float) -> bool:
            raise ProcessExitedException("process 0 terminated with signal SIGKILL", 0, 1, -9, "SIGKILL")

    monkeypatch.setattr(training, "start_processes", lambda *_, **__: Killed())
    with pytest.raises(WorkerError, match="a worker process was ended"):
        train(corpus, RECIPE, tmp_path)
