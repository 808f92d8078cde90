"""Check the installed packages for known vulnerabilities: `make audit`.

Exits with 0 if no checked package has a vulnerability that a newer version fixes, with 1 if one has, and
with 2 if no package could be checked: offline, or with a package index without vulnerability data (as many
mirrors are).
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
    """Run pip-audit on this environment, print the result, and return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        # The exit code of pip-audit is not enough: it is 0 even if every package was skipped.
        result = subprocess.run(
            [sys.executable, "-m", "pip_audit", *_OPTIONS, f"--output={report}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.is_file():
            print(f"Not audited: {(result.stderr.strip() or 'pip-audit printed nothing').splitlines()[-1]}")
            return 2
        packages = json.loads(report.read_text())["dependencies"]
    return print_result(packages)


def print_result(packages: list[dict[str, Any]]) -> int:
    """Print the vulnerable packages of a pip-audit report, and return the exit code."""
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    vulnerable = [one for one in packages if one.get("vulns")]
    if len(skipped) == len(packages):
        print(f"Not audited: the package index has no vulnerability data on these {len(packages)} packages.")
        return 2
    for one in vulnerable:
        for vulnerability in one["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            print(f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    fixable = [one for one in vulnerable if any(each["fix_versions"] for each in one["vulns"])]
    checked = len(packages) - len(skipped)
    print(f"{checked} packages checked, {len(vulnerable)} of them vulnerable, {len(fixable)} with a fix.")
    if skipped:
        print(f"{len(skipped)} packages could not be checked: {', '.join(sorted(skipped))}")
    return 1 if fixable else 0


if __name__ == "__main__":
    sys.exit(main())
