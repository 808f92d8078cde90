"""Ask whether anything installed here is known to be vulnerable: `make audit`.

Exits with 0 if all that could be asked about is free of it, 1 if something is vulnerable, and 2 if nothing
could be asked: offline, or the package index knows no vulnerabilities (a mirror often does not).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_OPTIONS = ("--local", "--skip-editable", "--progress-spinner=off", "--format=json")


def main() -> int:
    """Run pip-audit over this environment and say what came of it."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        # By itself it also calls an audit clean in which every package was skipped.
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *_OPTIONS, f"--output={report}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.is_file():
            print(f"Not audited: {(done.stderr.strip() or 'pip-audit said nothing').splitlines()[-1]}")
            return 2
        found = json.loads(report.read_text())["dependencies"]
    return tell(found)


def tell(found: list[dict[str, Any]]) -> int:
    """Say what pip-audit found, package by package; gives the exit code."""
    skipped = [one["name"] for one in found if "skip_reason" in one]
    vulnerable = [one for one in found if one.get("vulns")]
    if len(skipped) == len(found):
        print(f"Not audited: the package index that was asked knows none of these {len(found)} packages.")
        return 2
    for one in vulnerable:
        for about in one["vulns"]:
            fixed = ", ".join(about["fix_versions"]) or "no version yet"
            print(f"{one['name']} {one['version']}: {about['id']}, fixed in {fixed}")
    print(f"{len(found) - len(skipped)} packages asked about, {len(vulnerable)} of them vulnerable.")
    if skipped:
        print(f"{len(skipped)} could not be asked about: {', '.join(sorted(skipped))}")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
