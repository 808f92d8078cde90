"""The parser of the commands' arguments: one-line errors with a suggestion, and help in colour."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class ArgumentParser(argparse.ArgumentParser):
    """Parses arguments; wrong usage exits with code 2 and one line, which suggests the nearest name."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        self.exit(2, f"{self.prog.split()[0]}: {self.usage_problem(message)}\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit, after standard output has been written. Raises OSError if it cannot be."""
        if sys.stdout is not None:
            sys.stdout.flush()
        super().exit(status, message)

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None and file is sys.stdout:
            file.write(message)  # argparse would ignore that this fails
        else:
            super()._print_message(message, file)

    def usage_problem(self, message: str) -> str:
        """Return a message that names this parser's --help."""
        return f"{message}{'' if message.endswith(('.', '?')) else '.'} See `{self.prog} --help`"

    def format_help(self) -> str:
        """Return the help. Only here is its format imported, which takes 0.1 s."""
        from earmark_audio.help_formatter import HelpFormatter

        self.formatter_class = HelpFormatter
        return super().format_help()

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments, as argparse does, but report an unknown option before anything else."""
        arguments = sys.argv[1:] if args is None else list(args)
        self._check_options(arguments)
        return super().parse_known_args(arguments, namespace)

    def _check_options(self, arguments: Iterable[str]) -> None:
        known = self._option_string_actions
        for argument in arguments:
            if argument == "--" or (self._subparsers and not argument.startswith("-")):
                return  # no options follow, or those of a command
            self._check_short_option(argument)
            name = argument.partition("=")[0]
            if not name.startswith("--") or " " in name or name in known:
                continue
            if not (self.allow_abbrev and any(option.startswith(name) for option in known)):
                options = [option for option in known if option.startswith("--")]
                self.error(f"unknown option {name}{did_you_mean(name, options)}")

    def _check_short_option(self, argument: str) -> None:
        # argparse takes a negative number, and what has a space, for a value.
        is_value = self._negative_number_matcher.match(argument) or " " in argument
        if re.match("-[^-]", argument) and not is_value and argument[:2] not in self._option_string_actions:
            hint = f": write ./{argument} if it is a file" if "." in argument else ""
            self.error(f"unknown option {argument}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), choices) or f": choose {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"{value!r} is not known{hint}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the known name nearest to `name`; empty if none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f". Did you mean {nearest[0]}?" if nearest else ""
