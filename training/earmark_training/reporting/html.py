"""The parts of a self-contained HTML page: its frame, tables, and plots as SVG."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 0.5em 0 } td, th { padding: 0.15em 0.9em 0.15em 0 }
tr { border-bottom: 1px solid #ddd } td, th { text-align: right }
td:first-child, th:first-child, .text td, .text th { text-align: left }
svg { max-width: 100%; height: auto } p { max-width: 48em } code { font-size: 0.9em }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page of HTML parts, with its title as a heading."""
    head = f"<meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
    body = "\n".join((f"<h1>{escape(title)}</h1>", *parts))
    return f"<!doctype html><html lang=en>{head}\n{body}\n</html>\n"


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
