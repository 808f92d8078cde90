"""What every command prints: the machine's facts, and a Markdown table with its numbers."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def machine_facts() -> str:
    """Say what the figures depend on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    return (
        f"{os.cpu_count()} cores ({model}), load {os.getloadavg()[0]:.1f} before, "
        f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, "
        f"grpcio {version('grpcio')}"
    )


def print_head(about: str, columns: Sequence[str]) -> None:
    """Print what was measured, and on what; then the head of the table."""
    print(f"{machine_facts()}; {about}\n")
    print_row(columns)
    print_row(["---:"] * len(columns))


def print_row(cells: Sequence[str]) -> None:
    """Print a line of the table, at once."""
    print(f"| {' | '.join(cells)} |", flush=True)


def number(value: float | None, digits: int = 1) -> str:
    """Write a number; what could not be measured is n/a."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def quantile_ms(times_s: Sequence[float], percent: float) -> float | None:
    """Give the time, in ms, that so many percent of the times do not exceed; None for no times."""
    return 1000 * float(np.percentile(times_s, percent)) if times_s else None
