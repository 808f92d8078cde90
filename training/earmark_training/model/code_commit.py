"""The commit of this code, which models record as their origin."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def code_commit() -> str:
    """Return the commit of this code, with `-dirty` if files have changed since.

    Outside a git checkout, return the environment variable EARMARK_COMMIT, or `unknown`.
    """
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty",
        "--match=",
    ]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("EARMARK_COMMIT", "unknown")
