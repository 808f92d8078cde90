"""Make torchaudio importable where its wheel was built for CUDA and torch for the CPU.

Beside a CPU build of torch, PyPI's torchaudio fails at import: its compiled libraries look for CUDA's. What
Earmark uses of it (the data set class, mel filters, SpecAugment) is Python code that runs without them, so
they are removed. An installation that imports is left alone. Run with the Python it is to be repaired in.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


def imports() -> bool:
    """Whether a fresh interpreter can import torchaudio."""
    return (
        subprocess.run(
            [sys.executable, "-c", "import torchaudio"], capture_output=True, check=False
        ).returncode
        == 0
    )


def main() -> int:
    """Repair if needed; return 0 if torchaudio can be imported in the end."""
    if imports():
        return 0
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        print("torchaudio is not installed", file=sys.stderr)
        return 1
    for library in sorted((Path(spec.origin).parent / "lib").glob("*.so")):
        print(f"removing {library.name}: it was built for another torch than the one installed")
        library.unlink()
    if not imports():
        print(
            "torchaudio cannot be imported even without its compiled libraries: reinstall it", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
