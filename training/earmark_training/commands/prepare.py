"""`earmark-train prepare`: decode the recordings into one corpus that training reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress

from earmark_training.commands.options import add_corpus_option

if TYPE_CHECKING:
    import argparse

SUMMARY = "Decode the recordings once into a corpus that training reads."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--clips",
        type=Path,
        metavar="DIR",
        help="folder of clips laid out as <word>/<speaker>_nohash_<n>.<wav|flac|ogg|opus>",
    )
    source.add_argument(
        "--download", type=Path, metavar="DIR", help="download Speech Commands v0.02 into DIR and use it"
    )
    parser.add_argument(
        "--speech",
        type=Path,
        action="append",
        metavar="DIR",
        default=[],
        help="read speech with transcripts in LibriSpeech's layout, used as negative examples; repeatable",
    )
    parser.add_argument(
        "--noise",
        type=Path,
        action="append",
        metavar="DIR",
        default=[],
        help="recordings of noise, in addition to those of the clips; repeatable",
    )
    parser.add_argument(
        "--music",
        type=Path,
        action="append",
        metavar="DIR",
        default=[],
        help="recordings of music without singing; repeatable",
    )
    add_corpus_option(parser, "folder to write the corpus to")


def run(args: argparse.Namespace) -> None:
    """Prepare the corpus and print its size."""
    from earmark_training.data.corpus import hours, prepare
    from earmark_training.data.public_sets import SPEECH_COMMANDS, download

    with Progress() as progress:
        clips = args.clips or download(SPEECH_COMMANDS, args.download, progress=progress)
        corpus = prepare(
            clips, args.speech, args.corpus, noise=args.noise, music=args.music, progress=progress
        )
    count = Counter((r.kind, r.split) for r in corpus.recordings)
    for kind in ("clip", "speech", "noise", "music"):
        if any(of == kind for of, _ in count):
            splits = ", ".join(f"{count[kind, s]} for {s}" for s in ("training", "validation", "testing"))
            print(f"{kind:8} {splits}")
    print(f"{len(corpus.recordings)} recordings, {hours(corpus.recordings):.1f} h, in {args.corpus}")
    if not args.speech:
        print("without --speech, false alarms in speech are neither trained on nor measured")
