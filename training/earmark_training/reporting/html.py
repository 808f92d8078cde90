"""The parts of a self-contained HTML page: its frame, tables, and plots as SVG."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.figure import Figure

# In the dark, the plots are inverted, and their colours turned back.
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #222; --line: #ddd }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em;
  background: var(--ground); color: var(--ink) }
table { border-collapse: collapse; margin: 0.5em 0; display: block; overflow-x: auto }
td, th { padding: 0.15em 0.9em 0.15em 0; text-align: right } tr { border-bottom: 1px solid var(--line) }
td:first-child, th:first-child, .text td, .text th { text-align: left }
nav ul { columns: 18em; padding-left: 1.2em } nav .part { break-after: avoid; font-weight: 600 }
svg { max-width: 100%; height: auto; background: #fff } p { max-width: 48em }
code { font-size: 0.9em; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181b; --ink: #ececec; --line: #3a3d42 } a { color: #8ab4f8 }
  svg { filter: invert(.92) hue-rotate(180deg) }
}
"""
_HEADING = re.compile(r"<(h[12])>(.*?)</\1>", re.DOTALL)
_FEW_HEADINGS = 3


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page of HTML parts, with its title as a heading, and a table of contents."""
    head = (
        "<meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    contents: list[str] = []

    def with_anchor(heading: re.Match[str]) -> str:
        level, text = heading.groups()
        anchor = f"s{len(contents) + 1}"
        kind = " class=part" if level == "h1" else ""
        contents.append(f"<li{kind}><a href='#{anchor}'>{text}</a></li>")
        return f"<{level} id={anchor}>{text}</{level}>"

    body = _HEADING.sub(with_anchor, "\n".join(parts))
    nav = f"<nav><ul>{''.join(contents)}</ul></nav>" if len(contents) > _FEW_HEADINGS else ""
    return f"<!doctype html><html lang=en>{head}\n<h1>{escape(title)}</h1>\n{nav}\n{body}\n</html>\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """Return a table of texts, which are escaped. With `numbers`, all columns but the first align right."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    start = "<table>" if numbers else "<table class=text>"
    return start + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def svg(figure: Figure) -> str:
    """Return the figure as an SVG element, without the parts that only a file needs."""
    import matplotlib as mpl

    out = io.StringIO()
    # Text stays text; with the salt, the same figure has the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "earmark"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
