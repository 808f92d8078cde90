"""The output of the commands: a line about the machine, and a Markdown table."""

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
    """Return a description of the machine and of the versions that the figures depend on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    return (
        f"{os.cpu_count()} cores ({model}), load average {os.getloadavg()[0]:.1f} before, "
        f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, "
        f"grpcio {version('grpcio')}"
    )


def print_header(description: str, columns: Sequence[str]) -> None:
    """Print the machine and a description of the measurement, then the head of the table."""
    print(f"{machine_facts()}; {description}\n")
    print_row(columns)
    print_row(["---:"] * len(columns))


def print_row(cells: Sequence[str]) -> None:
    """Print one row of the table, and flush it."""
    print(f"| {' | '.join(cells)} |", flush=True)


def number(value: float | None, digits: int = 1) -> str:
    """Format a number; None, which could not be measured, is n/a."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def percentile_ms(times_s: Sequence[float], percent: float) -> float | None:
    """Return a percentile of times, in ms; None if there are no times."""
    return 1000 * float(np.percentile(times_s, percent)) if times_s else None
