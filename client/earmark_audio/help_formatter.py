"""The format of --help, in colour on a terminal."""

from __future__ import annotations

from rich_argparse import RawDescriptionRichHelpFormatter


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """Prints texts without markup, and titles as they are written."""

    group_name_formatter = str
    text_markup = False
