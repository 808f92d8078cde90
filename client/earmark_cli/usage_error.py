"""The error of wrong usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_client.errors import InvalidRequestError

if TYPE_CHECKING:
    import argparse


class UsageError(InvalidRequestError):
    """The options of a command are wrong, or contradict each other: the command exits with code 2."""


def check_required(args: argparse.Namespace, options: tuple[str, ...], required: str) -> None:
    """Raise UsageError if one of the options is given that have no effect without those `required`."""
    for option in options:
        if getattr(args, option) is not None:
            raise UsageError(f"--{option.replace('_', '-')} requires {required}")
