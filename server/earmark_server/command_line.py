"""The server's command line and environment: how a person gives its settings."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_type_hints

from earmark_server.credentials.tokens import add_token
from earmark_server.reload import BadFileError
from earmark_server.settings import Settings, SettingsError, allowed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from dataclasses import Field

ENVIRONMENT_PREFIX = "EARMARK_"

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Take the settings from a command line, else from the environment, else their defaults.

    Exits with code 2 and a sentence on standard error where a value is wrong.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    hints = get_type_hints(Settings)
    try:
        values = {}
        for one in fields(Settings):
            variable = ENVIRONMENT_PREFIX + one.name.upper()
            if given[one.name] is not None:
                values[one.name] = _parse(_flag(one), hints[one.name], given[one.name])
            elif environment.get(variable):
                text = environment[variable]
                parts = text.split(os.pathsep) if hints[one.name] == tuple[str, ...] else text
                values[one.name] = _parse(variable, hints[one.name], parts)
        return Settings(**values)
    except SettingsError as error:
        parser.error(str(error))


def _flag(one: Field[Any]) -> str:
    return "--" + one.name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="earmark-server",
        description="Marks keywords in live audio: the gRPC service earmark.v1.KeywordSpottingService.",
        epilog="The command line wins over the environment. SIGTERM or SIGINT drains the server and "
        "ends it; a second one ends it at once.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--new-token",
        action=_NewToken,
        nargs=2,
        metavar=("NAME", "FILE"),
        help="make a token for NAME, add its line to FILE (for --token-file; may be new), print the token, "
        "and end. Only its hash is kept: give the token to its owner now. To replace a token, make another "
        "for the same name, and take the first line out later",
    )
    hints = get_type_hints(Settings)
    for one in fields(Settings):
        about = dict(one.metadata)
        default = _shown(one.default)
        notes = [
            about["unit"],
            allowed(one),
            f"default {default}",
            f"environment {ENVIRONMENT_PREFIX}{one.name.upper()}",
        ]
        text = f"{about['help']} ({'; '.join(note for note in notes if note)})".replace("%", "%%")
        hint = hints[one.name]
        metavar = "N" if hint in {int, float} else one.name.rsplit("_", 1)[-1].upper()
        if hint is bool:
            parser.add_argument(
                _flag(one), action=argparse.BooleanOptionalAction, default=None, help=text, dest=one.name
            )
        elif hint == tuple[str, ...]:
            parser.add_argument(
                _flag(one), action="append", default=None, metavar=metavar, help=text, dest=one.name
            )
        else:
            parser.add_argument(_flag(one), default=None, metavar=metavar, help=text, dest=one.name)
    return parser


class _NewToken(argparse.Action):
    """Does what it is for as soon as it is seen, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, values: Any, __: object = None) -> None:
        try:
            print(add_token(*values))
        except BadFileError as error:
            parser.error(str(error))
        parser.exit()


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if default in ((), ""):
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _parse(source: str, hint: Any, given: Any) -> Any:
    """Turn what a person wrote into a value; `source` is what they would have to change."""
    if hint == tuple[str, ...]:
        return tuple(given)
    if hint is str or isinstance(given, bool):
        return given
    text = given.strip().lower()
    if hint is bool:
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise SettingsError(f"{source} must be one of {', '.join(_TRUE + _FALSE)}, but is {given!r}.")
    try:
        return hint(text)
    except ValueError:
        kind = "a whole number" if hint is int else "a number"
        raise SettingsError(f"{source} must be {kind}, but is {given!r}.") from None
