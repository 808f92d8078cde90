"""Fixtures of the server's tests."""

from __future__ import annotations

import sys
from pathlib import Path

# As in tests/conftest.py: lets the tests import server_rig, which lies beside this file.
sys.path.insert(0, str(Path(__file__).parent))
