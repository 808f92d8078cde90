"""scripts/train_if_needed.sh: which model the images get, and the messages about it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/train_if_needed.sh"


class Trainer:
    """Runs the script in temporary folders, with a fake `earmark-train`."""

    def __init__(self, folder: Path) -> None:
        self.models, self.out, self.clips = folder / "models", folder / "out", folder / "clips"
        self.bundled = folder / "bundled.onnx"
        self.commands = folder / "commands"
        self._path = folder / "bin"
        for one in (self.models, self.out, self.clips, self._path):
            one.mkdir()
        self.bundled.write_bytes(b"bundled")
        self.install_fake(export_command="true")

    def install_fake(self, *, export_command: str) -> None:
        """Install a fake `earmark-train` that records its arguments, and runs `export_command` on export."""
        command = self._path / "earmark-train"
        command.write_text(
            f'#!/bin/bash\necho "$*" >> {self.commands}\nmkdir -p {self.models}/run/report\n'
            f"touch {self.models}/run/{{train.log,metrics.json,curves.png}}\n"
            f"echo measured > {self.models}/run/report/model_card.md\n"
            f'if [ "$1" = export ]; then {export_command}; fi\n'
        )
        command.chmod(0o755)

    def run(
        self, *arguments: str, train: str = "0", prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
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
            [*prefix, "bash", SCRIPT, *arguments],
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
def test_a_given_model_is_used_without_training(trainer: Trainer, train: str) -> None:
    (trainer.models / "mine.onnx").write_bytes(b"mine")
    done = trainer.run(train=train)
    assert done.returncode == 0
    assert "mine.onnx (4 bytes), the given model: no training" in done.stdout
    assert (trainer.out / "model.onnx").read_bytes() == b"mine"
    assert not trainer.commands.exists()


def test_without_a_given_model_the_bundled_one_is_used(trainer: Trainer) -> None:
    done = trainer.run()
    assert done.returncode == 0
    assert "(7 bytes), the bundled model" in done.stdout
    assert (trainer.out / "model.onnx").read_bytes() == b"bundled"
    assert not trainer.commands.exists()


def test_a_model_comes_with_its_card(trainer: Trainer) -> None:
    (trainer.bundled.parent / "MODEL_CARD.md").write_text("bundled")
    assert trainer.run().returncode == 0
    assert (trainer.out / "MODEL_CARD.md").read_text() == "bundled"
    (trainer.models / "mine.onnx").write_bytes(b"mine")
    assert trainer.run().returncode == 0
    assert "without a card" in (trainer.out / "MODEL_CARD.md").read_text()
    (trainer.models / "MODEL_CARD.md").write_text("mine")
    assert trainer.run().returncode == 0
    assert (trainer.out / "MODEL_CARD.md").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root can write everywhere")
def test_a_folder_of_another_user_is_reported_with_the_remedy(trainer: Trainer, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o555)
    trainer.models.chmod(0o555)
    unprivileged = ("setpriv", "--reuid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    done = trainer.run(train="1", prefix=unprivileged)
    assert done.returncode == 1
    assert f"cannot write to {trainer.models}: run the container as its owner" in done.stderr
    assert "EARMARK_USER=$(id -u):$(id -g)" in done.stderr


def test_two_given_models_are_an_error(trainer: Trainer) -> None:
    for name in ("a.onnx", "b.onnx"):
        (trainer.models / name).touch()
    done = trainer.run()
    assert done.returncode == 1
    assert "2 models (a.onnx b.onnx): keep only the one" in done.stderr


def test_training_ignores_the_bundled_model_and_writes_its_artifacts(trainer: Trainer) -> None:
    trainer.install_fake(export_command=f"echo new > {trainer.models}/run/model.onnx")
    done = trainer.run("--preset", "quick", train="1")
    assert done.returncode == 0, done.stderr
    assert "TRAIN=1 ignores the bundled one: training one" in done.stdout
    commands = trainer.commands.read_text().splitlines()
    assert [line.split()[0] for line in commands] == ["prepare", "train", "export", "evaluate"]
    assert commands[1].endswith("--preset quick")
    assert (trainer.models / "model.onnx").read_text() == "new\n"
    artifacts = {path.name for path in trainer.out.iterdir()}
    assert artifacts == {"model.onnx", "MODEL_CARD.md", "train.log", "metrics.json", "curves.png", "report"}
    assert (trainer.out / "MODEL_CARD.md").read_text() == "measured\n"


def test_training_without_a_model_as_its_result_fails_with_a_message(trainer: Trainer) -> None:
    done = trainer.run(train="1")
    assert done.returncode == 1
    assert "training ended without a model" in done.stderr
    assert not (trainer.out / "model.onnx").exists()


def test_training_without_recordings_states_where_they_belong(trainer: Trainer) -> None:
    trainer.clips.rmdir()
    done = trainer.run(train="1")
    assert done.returncode == 1
    assert f"mount a folder in the layout of Speech Commands at {trainer.clips}" in done.stderr
