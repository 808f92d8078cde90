"""Check that a tag can be released, and print the release notes: the part of CHANGELOG.md about its version.

    python scripts/release_notes.py v1.2.3

Exits with 1 and the cause if the tag is not the version in pyproject.toml, or if the changelog has no dated
section with entries of that version.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def release_notes(tag: str, version: str, changelog: str) -> str:
    """Return the notes of a version; ValueError, with the remedy, if the tag cannot be released."""
    if tag != f"v{version}":
        raise ValueError(
            f"pyproject.toml: the version is {version}, but the tag is {tag}: expected v{version}"
        )
    found = re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    if found is None or not found[1].strip():
        raise ValueError(f"CHANGELOG.md: there is no section '## [{version}] - YEAR-MONTH-DAY' with entries")
    return found[1].strip()


def main() -> int:
    """Print the notes of the tag; return the exit code."""
    if len(sys.argv) != 2:
        print((__doc__ or "").split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        print(release_notes(sys.argv[1], version, (ROOT / "CHANGELOG.md").read_text()))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
