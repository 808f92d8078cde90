"""docs/limits.md lists every limit with its default."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from earmark_server.settings import Settings, SettingsError

TABLE = Path(__file__).parents[3] / "docs" / "limits.md"


def test_every_limit_is_in_the_table_with_its_default() -> None:
    rows = re.findall(r"^\| `--([a-z-]+)` \| (\S+) \| .+ \|$", TABLE.read_text(), re.MULTILINE)
    listed = {name.replace("-", "_"): float(default) for name, default in rows}
    assert len(listed) == len(rows)
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert listed == {name: defaults.get(name) for name in listed}
    limits = {name for name in defaults if name.startswith(("max_", "min_")) or name.endswith("_timeout_s")}
    # This one limits the engine, not the clients.
    assert limits - {"stall_timeout_s"} <= listed.keys()


def test_a_rate_slower_than_live_audio_is_rejected() -> None:
    assert Settings(max_rate=0).max_rate == 0
    assert Settings(max_rate=1).max_rate == 1
    with pytest.raises(SettingsError, match=r"--max-rate must be 0 \(no limit\) or at least 1, but is 0.5"):
        Settings(max_rate=0.5)
