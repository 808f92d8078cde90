"""Who calls."""

from __future__ import annotations

from contextvars import ContextVar

caller: ContextVar[str | None] = ContextVar("caller", default=None)
"""The name of the credential that this call came with; None where there is none."""
