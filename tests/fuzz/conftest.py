"""Lets the tests import what lies beside them, and `benchmarks`, whose HTTP/2 they bend."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
