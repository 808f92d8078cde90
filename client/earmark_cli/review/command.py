"""`earmark review`: the command."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_cli.options import add_command, whole_number
from earmark_cli.output.console import print_line
from earmark_cli.review.reviewed_clips import VERDICTS, read_clips, write_missed
from earmark_cli.review.thresholds import suggestions
from earmark_cli.usage_error import UsageError, check_required

if TYPE_CHECKING:
    import argparse

    from earmark_cli.options import Commands

_PORT = 8090


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands, "review", "mark the detection of each clip in a folder as right or wrong", run
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that --clips has written")
    parser.add_argument("--all", action="store_true", help="also clips that were reviewed before")
    parser.add_argument(
        "--page", action="store_true", help="review in a browser, on a page of this machine alone"
    )
    parser.add_argument(
        "--missed-to",
        type=Path,
        metavar="FOLDER",
        help="afterwards write the words of all clips marked as missed to this folder, one file each, as "
        "recordings of the keyword for `earmark-train keyword --recordings`; if the clips are of several "
        "keywords, the words of each to a folder of its name in it; existing files stay as they are",
    )
    parser.add_argument(
        "--port",
        type=whole_number(0, 65_535),
        metavar="PORT",
        help=f"port of the page; 0: any free port (default: {_PORT})",
    )
    parser.epilog = (
        "The verdicts are written to the JSON files beside the clips; `earmark-train keyword --mistakes DIR` "
        "learns from them. If four or more clips of a keyword are wrong, the last line states the threshold "
        "that two thirds of them would not have reached."
    )


def run(args: argparse.Namespace) -> int:
    """Review; print how many clips have which verdict, and which thresholds would have fewer wrong ones."""
    if not args.page:
        check_required(args, ("port",), "--page")
    clips = read_clips(args.folder)
    missed_to = args.missed_to
    if missed_to is not None and os.path.exists(missed_to) and os.path.samefile(missed_to, args.folder):
        raise UsageError(f"--missed-to: {missed_to} contains the clips: give another folder for the words")
    chosen = [clip for clip in clips if args.all or clip.verdict is None]
    try:
        if args.page:
            from earmark_cli.review.page import serve_page  # imports http.server

            serve_page(clips, _PORT if args.port is None else args.port)
        elif chosen:
            from earmark_cli.review.terminal import review_in_terminal

            review_in_terminal(chosen)
    finally:
        counts = Counter(clip.verdict for clip in clips)
        summary = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
        print_line(f"{args.folder}: {len(clips)} clips, {summary}, {counts[None]} not reviewed")
        for line in suggestions(clips):
            print_line(line)
        if missed_to is not None:
            write_missed(clips, missed_to)
    return 0
