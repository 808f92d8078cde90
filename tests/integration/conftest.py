"""Fixtures of the integration tests."""

from __future__ import annotations

import sys
from pathlib import Path

# As in tests/conftest.py: lets the tests import outside, which lies beside this file.
sys.path.insert(0, str(Path(__file__).parent))
