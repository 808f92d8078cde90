"""HTML pages that consist of one file and load nothing."""

from __future__ import annotations

from html import escape
from pathlib import Path

_SHELL = Path(__file__).with_suffix(".html")


def html_page(title: str, body: str, *, style: str, script: str = "") -> str:
    """Return a page. `title` is text; `body` is HTML, `style` CSS and `script` JavaScript."""
    parts = {
        "TITLE": escape(title),
        "STYLE": style,
        "BODY": body,
        "SCRIPT": f"<script>\n{script}</script>\n" if script else "",
    }
    return fill_template(_SHELL.read_text(encoding="utf-8"), parts)


def fill_template(template: str, parts: dict[str, str]) -> str:
    """Replace each @@NAME@@ of a template by that part; parts themselves are not searched."""
    before, *pieces = template.split("@@")
    # The pieces alternate: the name of a part, then the text up to the next one.
    return before + "".join(parts[piece] if i % 2 == 0 else piece for i, piece in enumerate(pieces))
