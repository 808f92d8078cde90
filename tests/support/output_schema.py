"""The JSON schema of what the commands print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "output.schema.json").read_text())


def check_line(line: dict[str, Any]) -> None:
    """Fail if a line of output does not match the schema."""
    import jsonschema  # it takes a second

    jsonschema.validate(line, SCHEMA)
