"""The format of --help, in colour on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich_argparse import RawDescriptionRichHelpFormatter, RichHelpFormatter

if TYPE_CHECKING:
    from rich.text import Text


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """Prints texts without markup, and titles as they are written."""

    group_name_formatter = str
    text_markup = False

    def _rich_fill_text(self, text: Text, width: int, indent: Text) -> Text:
        """Wrap a text of a single line; one with several, such as examples, keeps them."""
        kind = RawDescriptionRichHelpFormatter if "\n" in text.plain.strip() else RichHelpFormatter
        return kind._rich_fill_text(self, text, width, indent)
