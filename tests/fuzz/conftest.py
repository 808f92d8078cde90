"""Makes the fuzzer's modules importable: they are next to the test, and also run as a program."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
