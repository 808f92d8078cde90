"""Check that a trained model is good enough to be kept.

    python scripts/check_accuracy.py REPORT MINIMUM

REPORT is metrics.json of the report of `earmark-train evaluate`, MINIMUM the least classification accuracy on
the validation clips, such as 0.7. Exits with 1 and both figures if the accuracy is below it, or is missing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    """Compare the figures; return the exit code."""
    if len(sys.argv) != 3:
        print((__doc__ or "").split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    report, minimum = Path(sys.argv[1]), float(sys.argv[2])
    accuracy = json.loads(report.read_text())["figures"].get("clip_accuracy")
    if accuracy is None or accuracy < minimum:
        found = "has no accuracy on clips" if accuracy is None else f"the accuracy on clips is {accuracy:.1%}"
        print(f"{report}: {found}, below {minimum:.1%}: the model is not kept", file=sys.stderr)
        return 1
    print(f"accuracy on clips: {accuracy:.1%}, at least {minimum:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
