"""The keyword of a detection as people read it: with its model, where a stream has several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_cli.output.console import printable

if TYPE_CHECKING:
    from earmark_client.events import ActiveKeyword, Detection, Started


def keyword_label(one: ActiveKeyword | Detection, started: Started) -> str:
    """Return the keyword of a detection or a setting in a stream, printable."""
    return printable(f"{one.keyword} ({one.model})" if len(started.models) > 1 else one.keyword)
