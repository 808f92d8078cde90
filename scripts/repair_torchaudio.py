"""Make torchaudio importable if its wheel was built for CUDA but torch for the CPU.

With a CPU build of torch, the import of PyPI's torchaudio fails, because its compiled libraries need those
of CUDA. The parts that Earmark uses (the data set classes, mel filters, SpecAugment) are pure Python, so
this script deletes the compiled libraries. It does nothing if torchaudio can be imported. Run it with the
Python of the environment to repair.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


def can_import() -> bool:
    """Return whether a new interpreter can import torchaudio."""
    return (
        subprocess.run(
            [sys.executable, "-c", "import torchaudio"], capture_output=True, check=False
        ).returncode
        == 0
    )


def main() -> int:
    """Repair torchaudio if necessary; return 0 if it can be imported afterwards."""
    if can_import():
        return 0
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        print("torchaudio is not installed: pip install torchaudio", file=sys.stderr)
        return 1
    for library in sorted((Path(spec.origin).parent / "lib").glob("*.so")):
        print(f"deleting {library.name}: it does not match the installed torch")
        library.unlink()
    if not can_import():
        print(
            "torchaudio cannot be imported without its compiled libraries either: reinstall it",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
