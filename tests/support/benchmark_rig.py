"""Runs the benchmark commands with short loads, on the tiny model and its words."""

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
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str

    def tables(self) -> list[list[list[str]]]:
        """Return the cells of all rows of all tables."""
        found: list[list[list[str]]] = [[]]
        for line in self.out.splitlines():
            if line.startswith("|"):
                found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
            elif found[-1]:
                found.append([])
        return [table for table in found if table]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the head and the rows of the only table."""
        ((head, rule, *lines),) = self.tables()
        assert rule == ["---:"] * len(head)
        assert all(len(line) == len(head) for line in lines)
        return head, lines


def words(folder: Path, said: list[tuple[float, str]] = WORDS) -> Path:
    """Write a recording of two seconds with these words at these times; return its path."""
    path = folder / "words.wav"
    soundfile.write(path, tiny_model.recording(said, 2.0), tiny_model.RATE_HZ, subtype="PCM_16")
    return path


def run(name: str, *arguments: str | Path) -> Done:
    """Run a command in a process."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def expect_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a command in this process expect a detection that no server sends."""
    from benchmarks.loadgen.speech import Speech

    original = Speech.expected_detections

    def expected_detections(self: Speech, *arguments: int) -> dict[str, int]:
        return original(self, *arguments) | {"a detection that no server sends": 0}

    monkeypatch.setattr(Speech, "expected_detections", expected_detections)
