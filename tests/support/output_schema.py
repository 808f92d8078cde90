"""The JSON schema of what the commands print."""

from __future__ import annotations

import json
from pathlib import Path

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "output.schema.json").read_text())
