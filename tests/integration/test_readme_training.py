"""The training commands in the documents, with synthetic words of synthetic speakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.ports import free_port
from support.readme_commands import Checkout, shown, unless_slow
from support.synthetic_words import BANANA, COMPUTER, LEMON, say, write_clips, write_recordings, write_speech
from support.virtual_microphone import plugged_in

if TYPE_CHECKING:
    from pathlib import Path


WITHIN_S = 3600


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    pytest.importorskip("torch")
    return Checkout.make(tmp_path)


@pytest.mark.slow
def test_the_training_extra_works(checkout: Checkout) -> None:
    (command,) = shown("test_the_training_extra_works")
    checkout.run(f"{command} && python -c 'import torchaudio'", timeout_s=WITHIN_S)


@pytest.mark.slow
@pytest.mark.parametrize("command", shown("test_a_command_of_earmark_train_exists"))
def test_a_command_of_earmark_train_exists(command: str, checkout: Checkout) -> None:
    assert f"usage: {command}" in checkout.run(f"{command} --help")


@unless_slow
def test_your_own_keyword(checkout: Checkout) -> None:
    # tests/cli/test_several_models.py listens to two models at once.
    training, serving, listening = (
        command for command in shown("test_your_own_keyword") if "--model earmark-en" not in command
    )
    write_recordings(checkout.folder / "DIR", COMPUTER, 40)
    write_speech(checkout.folder / "SPEECH", speakers=10, utterances=6)
    checkout.run(f"{training} --quick", timeout_s=WITHIN_S)
    assert "<h1>computer</h1>" in (checkout.folder / "computer.report.html").read_text()
    port = free_port()
    with (
        plugged_in() as microphone,
        checkout.running(serving, EARMARK_PORT=str(port)) as server,
    ):
        server.until("event=serving")
        command = listening.replace(":50051", f":{port}")
        with checkout.running(command, **microphone.own) as running:
            running.until("Recording from .*Keywords: computer")
            for person in range(50, 55):
                microphone.play(say(COMPUTER, person, 1) * 32767)
            running.until(r" computer +\d\.\d\d")


@unless_slow
def test_a_model_from_clips(checkout: Checkout) -> None:
    preparing, training, exporting, evaluating, serving = shown("test_a_model_from_clips")
    words = {"computer": COMPUTER, "banana": BANANA, "lemon": LEMON}
    write_clips(checkout.folder / "speech_commands", words, people=20)
    write_speech(checkout.folder / "LibriSpeech", speakers=10, utterances=4)
    training += " --preset quick --epochs 1 --keywords computer,banana"
    for command in (preparing, training, exporting, evaluating):
        checkout.run(command, timeout_s=WITHIN_S)
    assert (checkout.folder / "runs/mine/curves.png").exists()
    assert "<svg" in (checkout.folder / "report/report.html").read_text()
    with checkout.running(serving, EARMARK_PORT=str(free_port())) as server:
        server.until("event=serving")
