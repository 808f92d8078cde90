"""A progress bar on standard error, if that is a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark_cli.output.console import is_terminal, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress_bar(name: str, total: float) -> Iterator[Callable[[float], object]]:
    """Show a bar; yield a function that sets how much of `total` is done."""
    if not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(printable(name)), total=total)
        yield lambda done: progress.update(task, completed=done)
