"""The error of wrong usage."""

from __future__ import annotations

from earmark_client.errors import InvalidRequestError


class UsageError(InvalidRequestError):
    """The options of a command are wrong, or contradict each other: the command exits with code 2."""
