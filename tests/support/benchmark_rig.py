"""Runs the benchmark commands small, on the tiny model and its words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from support import tiny_model

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 120

WORDS = [(0.3, "low"), (0.8, "high"), (1.5, "mid")]


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def tables(self) -> list[list[list[str]]]:
        """The cells of every line of every table."""
        found: list[list[list[str]]] = [[]]
        for line in self.out.splitlines():
            if line.startswith("|"):
                found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
            elif found[-1]:
                found.append([])
        return [table for table in found if table]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The one table's head, and its lines."""
        ((head, rule, *lines),) = self.tables()
        assert rule == ["---:"] * len(head)
        assert all(len(line) == len(head) for line in lines)
        return head, lines


def words(folder: Path, said: list[tuple[float, str]] = WORDS) -> Path:
    """Write a recording of two seconds in which the words are said at those times."""
    path = folder / "words.wav"
    soundfile.write(path, tiny_model.recording(said, 2.0), tiny_model.RATE_HZ, subtype="PCM_16")
    return path


def run(name: str, *arguments: str | Path) -> Done:
    """Run a command as a person does."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def expect_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command in this process expect a detection that no server will send."""
    from benchmarks.loadgen.speech import Speech

    true_answers = Speech.answers

    def answers(self: Speech, *arguments: int) -> dict[str, int]:
        return true_answers(self, *arguments) | {"a detection that is never made": 0}

    monkeypatch.setattr(Speech, "answers", answers)
