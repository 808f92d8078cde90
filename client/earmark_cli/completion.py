"""`earmark completion`: what a shell needs to complete the command's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh", "fish")

HOW_TO = """\
bash:  earmark completion bash > ~/.local/share/bash-completion/completions/earmark
zsh:   earmark completion zsh > DIR/_earmark        (DIR: a folder in $fpath)
fish:  earmark completion fish > ~/.config/fish/completions/earmark.fish
"""


def completion(args: argparse.Namespace) -> int:
    """Print the script for one shell."""
    import shtab

    from earmark_cli.arguments import build_parser

    parser = build_parser()
    (commands,) = parser._subparsers._group_actions  # type: ignore[union-attr]
    for command in commands.choices.values():  # type: ignore[union-attr]
        for action in command._actions:
            match str(action.metavar).partition(".")[0]:
                case "FILE":
                    action.complete = shtab.FILE
                case "DIR":
                    action.complete = shtab.DIRECTORY
    print(shtab.complete(parser, shell=args.shell))
    return 0
