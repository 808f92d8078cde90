"""docs/limits.md has every limit, as it is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from earmark_server.settings import Settings, SettingsError

TABLE = Path(__file__).parents[3] / "docs" / "limits.md"


def test_every_limit_is_in_the_table_with_its_default() -> None:
    rows = re.findall(r"^\| `--([a-z-]+)` \| (\S+) \| .+ \|$", TABLE.read_text(), re.MULTILINE)
    told = {name.replace("-", "_"): float(default) for name, default in rows}
    assert len(told) == len(rows)
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert told == {name: defaults.get(name) for name in told}
    limits = {name for name in defaults if name.startswith(("max_", "min_")) or name.endswith("_timeout_s")}
    # How long the engine may take is no limit of a client's.
    assert limits - {"stall_timeout_s"} <= told.keys()


def test_a_rate_at_which_nobody_can_speak_is_refused() -> None:
    assert Settings(max_rate=0).max_rate == 0
    assert Settings(max_rate=1).max_rate == 1
    with pytest.raises(SettingsError, match=r"max_rate must be 0 \(no limit\) or at least 1, but is 0.5"):
        Settings(max_rate=0.5)
