"""`earmark-train negatives`: download speech without the keyword."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress

from earmark_training.commands.options import check_output_folder
from earmark_training.data.public_sets import LIBRISPEECH_DEV_CLEAN, download

if TYPE_CHECKING:
    import argparse

SUMMARY = (
    f"Download speech for `keyword --negatives`: {LIBRISPEECH_DEV_CLEAN.name} "
    f"({LIBRISPEECH_DEV_CLEAN.size_mb} MB, {LIBRISPEECH_DEV_CLEAN.licence})."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to download it into")


def run(args: argparse.Namespace) -> None:
    """Download the set, and print what to do with it."""
    check_output_folder(args.folder)
    with Progress() as progress:
        recordings = download(LIBRISPEECH_DEV_CLEAN, args.folder, progress=progress)
    folder = shlex.quote(str(recordings))
    print(f"{recordings}: use it with earmark-train keyword WORD --recordings DIR --negatives {folder}")
