"""Which model the images get, and what the trainer says of it: scripts/train_if_needed.sh."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/train_if_needed.sh"


class Trainer:
    """The script in folders of its own, with an `earmark-train` that leaves what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.models, self.out, self.clips = folder / "models", folder / "out", folder / "clips"
        self.bundled = folder / "bundled.onnx"
        self.commands = folder / "commands"
        self._path = folder / "bin"
        for one in (self.models, self.out, self.clips, self._path):
            one.mkdir()
        self.bundled.write_bytes(b"bundled")
        self.earmark_train(exporting="true")

    def earmark_train(self, *, exporting: str) -> None:
        """Put a command in place that notes how it was called, and runs `exporting` where it exports."""
        command = self._path / "earmark-train"
        command.write_text(
            f'#!/bin/bash\necho "$*" >> {self.commands}\nmkdir -p {self.models}/run/report\n'
            f"touch {self.models}/run/{{train.log,metrics.json,curves.png}}\n"
            f'if [ "$1" = export ]; then {exporting}; fi\n'
        )
        command.chmod(0o755)

    def run(self, *arguments: str, train: str = "0") -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self._path}:/usr/bin:/bin",
            "MODELS": str(self.models),
            "BUNDLED": str(self.bundled),
            "CLIPS": str(self.clips),
            "CORPUS": str(self.models.parent / "corpus"),
            "OUT": str(self.out),
            "TRAIN": train,
        }
        return subprocess.run(
            ["bash", SCRIPT, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)


@pytest.mark.parametrize("train", ["0", "1"])
def test_a_given_model_is_taken_and_nothing_trained(trainer: Trainer, train: str) -> None:
    (trainer.models / "mine.onnx").write_bytes(b"mine")
    done = trainer.run(train=train)
    assert done.returncode == 0
    assert "mine.onnx (4 bytes), which was given: nothing is trained" in done.stdout
    assert (trainer.out / "model.onnx").read_bytes() == b"mine"
    assert not trainer.commands.exists()


def test_without_a_given_model_the_bundled_one_is_taken(trainer: Trainer) -> None:
    done = trainer.run()
    assert done.returncode == 0
    assert "(7 bytes), which comes with Earmark" in done.stdout
    assert (trainer.out / "model.onnx").read_bytes() == b"bundled"
    assert not trainer.commands.exists()


def test_two_given_models_are_one_too_many(trainer: Trainer) -> None:
    for name in ("a.onnx", "b.onnx"):
        (trainer.models / name).touch()
    done = trainer.run()
    assert done.returncode == 1
    assert "2 models (a.onnx b.onnx): leave the one" in done.stderr


def test_training_sets_the_bundled_model_aside_and_leaves_its_artifacts(trainer: Trainer) -> None:
    trainer.earmark_train(exporting=f"echo new > {trainer.models}/run/model.onnx")
    done = trainer.run("--preset", "quick", train="1")
    assert done.returncode == 0, done.stderr
    assert "TRAIN=1 sets the one that comes with Earmark aside: training one" in done.stdout
    commands = trainer.commands.read_text().splitlines()
    assert [line.split()[0] for line in commands] == ["prepare", "train", "export", "evaluate"]
    assert commands[1].endswith("--preset quick")
    assert (trainer.models / "model.onnx").read_text() == "new\n"
    left = {path.name for path in trainer.out.iterdir()}
    assert left == {"model.onnx", "train.log", "metrics.json", "curves.png", "report"}


def test_training_that_produces_nothing_is_a_failure_with_a_sentence(trainer: Trainer) -> None:
    done = trainer.run(train="1")
    assert done.returncode == 1
    assert "training ended without a model" in done.stderr
    assert not (trainer.out / "model.onnx").exists()


def test_training_without_recordings_says_where_they_belong(trainer: Trainer) -> None:
    trainer.clips.rmdir()
    done = trainer.run(train="1")
    assert done.returncode == 1
    assert f"give a folder laid out as Speech Commands at {trainer.clips}" in done.stderr
