"""The fuzzer's modules lie beside its test, and run as a program too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
