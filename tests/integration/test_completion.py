"""Completion by the tab key, in real shells."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.virtual_terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

# How to start each shell without personal settings, and where it reads completions.
ARGUMENTS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config"]}
BEGIN = {
    "bash": "source {script}",
    "zsh": "fpath=({script.parent} $fpath); autoload -U compinit; compinit -u -D",
    "fish": "source {script}",
}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_choices_and_files_are_completed(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    script = tmp_path / "_earmark"
    command = [sys.executable, "-m", "earmark_cli", "completion", shell]
    script.write_text(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    (tmp_path / "meeting.wav").touch()
    with Terminal(
        *ARGUMENTS[shell], shell=program, HOME=str(tmp_path), PS1="> ", fish_greeting=""
    ) as terminal:
        terminal.type(f"{BEGIN[shell].format(script=script)}; cd {tmp_path}; clear; echo rea''dy\n")
        terminal.wait_for(lambda text: "ready" in text)
        for typed, completed in [
            ("earmark lis", "earmark listen "),
            ("earmark listen --list-d", "earmark listen --list-devices "),
            ("earmark spot --enc", "earmark spot --encoding "),
            ("earmark spot --encoding mu", "earmark spot --encoding mulaw "),
            ("earmark spot mee", "earmark spot meeting.wav "),
            ("earmark listen --record mee", "earmark listen --record meeting.wav "),
        ]:
            terminal.type(f"{typed}\t")
            # The next word shows that a space was inserted.
            terminal.type("x")
            terminal.wait_for(lambda text, completed=completed: f"{completed}x" in text)
            terminal.type("\x15")  # Ctrl-U deletes the line
