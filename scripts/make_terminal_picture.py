"""Make docs/terminal.svg: a screenshot of `earmark demo` in a terminal emulator.

Run: .venv/bin/python scripts/make_terminal_picture.py
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.virtual_terminal import Terminal  # noqa: E402

COLUMNS, LINES = 84, 18
# The screenshot shows the sixth detection while its score is still high.
DETECTIONS = 6


def main() -> None:
    """Run the demo, and write the screen after some detections as SVG."""
    with Terminal("demo", columns=COLUMNS, lines=LINES) as terminal:
        terminal.wait_for(lambda text: f"{DETECTIONS} detections" in text and "right    ━" in text)
        rows = [row for row in _rows(terminal) if row.plain.strip()]
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text("$ earmark demo"))
    for row in rows:
        console.print(row, no_wrap=True, crop=True)
    # Remove the web fonts, which are on another host.
    start, end = CONSOLE_SVG_FORMAT.index("@font-face"), CONSOLE_SVG_FORMAT.index(".{unique_id}-matrix")
    code_format = CONSOLE_SVG_FORMAT[:start] + CONSOLE_SVG_FORMAT[end:]
    code_format = code_format.replace("Fira Code, monospace", "Fira Code, DejaVu Sans Mono, Menlo, monospace")
    (ROOT / "docs" / "terminal.svg").write_text(
        console.export_svg(title="earmark", theme=MONOKAI, code_format=code_format, unique_id="earmark")
    )


def _rows(terminal: Terminal) -> list[Text]:
    rows = []
    for y in range(LINES):
        row = Text()
        for x in range(COLUMNS):
            cell = terminal.screen.buffer[y][x]
            colour = {"default": "", "brown": "yellow"}.get(cell.fg, cell.fg)
            # pyte ignores the attribute "dim", in which the empty part of a bar is drawn.
            if cell.data == "─":
                colour = "bright_black"
            row.append(cell.data, f"{'bold' if cell.bold else ''} {colour}".strip() or None)
        row.rstrip()
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
