"""`earmark completion`: print a script that completes the command in a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_cli.options import add_command

if TYPE_CHECKING:
    import argparse

    from earmark_cli.options import Commands

_INSTALLATION = """\
bash:  earmark completion bash > ~/.local/share/bash-completion/completions/earmark
zsh:   earmark completion zsh > DIR/_earmark        (DIR: a folder in $fpath)
fish:  earmark completion fish > ~/.config/fish/completions/earmark.fish
"""


def add_parser(commands: Commands, parser: argparse.ArgumentParser) -> None:
    """Add the command; `parser` is the parser that the script completes."""

    def run(args: argparse.Namespace) -> int:
        print(script(parser, args.shell))
        return 0

    own = add_command(commands, "completion", "print a completion script for a shell", run)
    own.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    own.epilog = _INSTALLATION


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script of a parser with commands, for one shell."""
    import shtab

    (commands,) = parser._subparsers._group_actions  # type: ignore[union-attr]
    for command in commands.choices.values():  # type: ignore[union-attr]
        for action in command._actions:
            match str(action.metavar).partition(".")[0]:
                case "FILE":
                    action.complete = shtab.FILE
                case "DIR":
                    action.complete = shtab.DIRECTORY
    completed: str = shtab.complete(parser, shell=shell)
    return completed
