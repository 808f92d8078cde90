"""Reads the server's settings from the command line, the environment and a configuration file."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, get_type_hints

from earmark_audio.argument_parser import ArgumentParser

from earmark_server.config_file import read_config_file
from earmark_server.credentials.tokens import add_token
from earmark_server.reload import BadFileError
from earmark_server.setting_declaration import SettingsError, declaration_of, option_of
from earmark_server.settings import GROUPS, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from dataclasses import Field

ENVIRONMENT_PREFIX = "EARMARK_"

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")

# How similar a misspelt name is to the right one. EARMARK_CERTIFICATE, a variable of clients, is less so.
_MISSPELT = 0.85


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings from the command line, else the environment, else a file, else their defaults.

    Exits with code 2 and an error message if a value is invalid.
    """
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    hints = get_type_hints(Settings)
    sources: dict[str, str] = {}
    try:
        config = options["config"] or environment.get(f"{ENVIRONMENT_PREFIX}CONFIG")
        values = read_config_file(config) if config else {}
        sources = {f"--{name.replace('_', '-')}": str(config) for name in values}
        for each in fields(Settings):
            variable = ENVIRONMENT_PREFIX + each.name.upper()
            if options[each.name] is not None:
                values[each.name] = _parse(option_of(each), hints[each.name], options[each.name])
                sources.pop(option_of(each), None)
            elif environment.get(variable):
                text = environment[variable]
                parts = text.split(os.pathsep) if hints[each.name] == tuple[str, ...] else text
                values[each.name] = _parse(variable, hints[each.name], parts)
                sources[option_of(each)] = variable
        return Settings(**values)
    except SettingsError as error:
        # A message names options, wherever their values come from.
        named = dict.fromkeys(re.findall(r"(?<!\S)--[a-z0-9-]+", str(error)))
        origins = [f"{option} is set in {sources[option]}." for option in named if option in sources]
        parser.error(" ".join([str(error), *origins]))


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that nearly have the name of one of a setting, and that name."""
    known = {ENVIRONMENT_PREFIX + each.name.upper() for each in fields(Settings)} | {
        f"{ENVIRONMENT_PREFIX}CONFIG"
    }
    names = [name.removeprefix(ENVIRONMENT_PREFIX) for name in known]
    misspelt = {}
    for variable in sorted(environment.keys() - known):
        if variable.startswith(ENVIRONMENT_PREFIX):
            name = variable.removeprefix(ENVIRONMENT_PREFIX)
            for nearest in difflib.get_close_matches(name, names, n=1, cutoff=_MISSPELT):
                misspelt[variable] = ENVIRONMENT_PREFIX + nearest
    return misspelt


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="earmark-server",
        usage="%(prog)s [options]",
        description="Keyword spotting in live audio and recordings: the gRPC service "
        "earmark.v1.KeywordSpottingService.",
        epilog="The command line takes precedence over the environment, and the environment over the file of "
        "--config. SIGTERM, SIGINT or SIGHUP drains the "
        "server and ends it; a second signal ends it at once.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"earmark-server {version('earmark')}")
    parser.add_argument(
        "--new-token",
        action=_NewToken,
        nargs=2,
        metavar=("NAME", "FILE"),
        help="create a token for NAME, append its line to FILE (for --token-file; it may be new), print the "
        "token, and exit. The file contains only its hash, so pass the token to its owner now. To replace a "
        "token, create another one for the same name, and remove the old line later",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="TOML file with settings, named as the options below, such as max-streams = 100 "
        f"(environment {ENVIRONMENT_PREFIX}CONFIG)",
    )
    hints = get_type_hints(Settings)
    group = parser.add_argument_group()
    for each in fields(Settings):
        if each.name in GROUPS:
            group = parser.add_argument_group(GROUPS[each.name])
        hint, text = hints[each.name], _help(each).replace("%", "%%")
        metavar = "N" if hint in {int, float} else each.name.rsplit("_", 1)[-1].upper()
        if hint is bool:
            group.add_argument(
                option_of(each),
                action=argparse.BooleanOptionalAction,
                default=None,
                help=text,
                dest=each.name,
            )
        elif hint == tuple[str, ...]:
            group.add_argument(
                option_of(each), action="append", default=None, metavar=metavar, help=text, dest=each.name
            )
        else:
            group.add_argument(option_of(each), default=None, metavar=metavar, help=text, dest=each.name)
    return parser


def _help(each: Field[Any]) -> str:
    declaration = declaration_of(each)
    notes = (
        declaration.unit,
        declaration.allowed,
        f"default {_default(each.default)}",
        f"environment {ENVIRONMENT_PREFIX}{each.name.upper()}",
    )
    return f"{declaration.help_text} ({'; '.join(note for note in notes if note)})"


class _NewToken(argparse.Action):
    """Creates a token as soon as the option is parsed, and exits, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, values: Any, __: object = None) -> None:
        try:
            print(add_token(*values))
        except BadFileError as error:
            parser.error(str(error))
        parser.exit()


def _default(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if default in ((), ""):
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _parse(source: str, hint: Any, value: Any) -> Any:
    """Return a value of type `hint`; SettingsError, which names `source`, if the text is not one."""
    if hint == tuple[str, ...]:
        return tuple(value)
    if hint is str or isinstance(value, bool):
        return value
    text = value.strip().lower()
    if hint is bool:
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise SettingsError(f"{source} must be one of {', '.join(_TRUE + _FALSE)}, but is {value!r}.")
    try:
        return hint(text)
    except ValueError:
        kind = "a whole number" if hint is int else "a number"
        raise SettingsError(f"{source} must be {kind}, but is {value!r}.") from None
