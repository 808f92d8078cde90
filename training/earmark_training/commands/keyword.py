"""`earmark-train keyword`: fine-tune the bundled model to a new keyword."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earmark_training.commands.options import check_output_file, print_metrics

if TYPE_CHECKING:
    import argparse

SUMMARY = "Fine-tune the bundled model to a new keyword, from recordings of it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("keyword", metavar="WORD", help="the word or phrase, as it is written")
    parser.add_argument(
        "--recordings",
        type=Path,
        required=True,
        metavar="DIR",
        help="recordings of the keyword, one utterance per file, by several people (WAV, FLAC, Ogg, MP3, …); "
        "at least 8, better 100 or more",
    )
    parser.add_argument(
        "--negatives",
        type=Path,
        action="append",
        metavar="DIR",
        default=[],
        help="hours of speech without the keyword: audio files, also in subfolders (transcripts in "
        "LibriSpeech's layout are used if present); repeatable. Without it, synthesized speech is used "
        "and the model is worse",
    )
    parser.add_argument(
        "--synthesize",
        action="store_true",
        help="add the keyword and confusable words spoken by the installed synthesizers (espeak-ng, flite, "
        "festival): improves a model made from about ten recordings, makes one from thirty or more worse",
    )
    parser.add_argument(
        "--language",
        default="en",
        metavar="CODE",
        help="language of the synthesizers, such as en, de, fr-fr (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="model file to write (default: WORD.onnx)")
    parser.add_argument("--name", help="name of the model (default: the keyword)")
    parser.add_argument("--version", default="1.0.0", help="version of the model (default: %(default)s)")
    parser.add_argument(
        "--fa-per-hour",
        type=float,
        default=0.5,
        metavar="N",
        help="false alarms per hour of speech that the threshold is chosen for (default: %(default)s)",
    )
    parser.add_argument(
        "--one-voice",
        action="store_true",
        help="accept recordings of one voice: the model is for the person who made them",
    )
    parser.add_argument(
        "--mistakes",
        type=Path,
        action="append",
        metavar="DIR",
        default=[],
        help="clips that `earmark review` has marked as wrong: the model learns not to detect them; requires "
        "--negatives; repeatable",
    )
    parser.add_argument("--quick", action="store_true", help="skip the measurement of the miss rate")
    parser.add_argument(
        "--base", type=Path, metavar="FILE", help="model to fine-tune (default: the bundled one)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="random seed; the same seed makes the same model (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Make the model file and print its metrics."""
    from earmark_training.keyword.fine_tune import FineTuneRecipe
    from earmark_training.keyword.pipeline import KeywordRequest, create_model
    from earmark_training.keyword.recordings import RecordingsError

    if not any(character.isalpha() for character in args.keyword):
        raise RecordingsError(f"{args.keyword!r} is not a word: give the keyword as it is written")
    for text in (args.keyword, args.name or ""):
        if any("\ud800" <= character <= "\udfff" for character in text):  # bytes that are not UTF-8
            raise RecordingsError(
                f"{text!r} is not valid UTF-8: correct it, or set the locale of the terminal"
            )
    request = KeywordRequest(
        keyword=args.keyword,
        recordings=args.recordings,
        negatives=tuple(args.negatives),
        synthesize=args.language if args.synthesize else None,
        out=args.out or Path(f"{args.keyword.replace(' ', '-')}.onnx"),
        name=args.name,
        version=args.version,
        fa_per_hour=args.fa_per_hour,
        one_voice=args.one_voice,
        base=args.base,
        folds=0 if args.quick else 3,
        mistakes=tuple(args.mistakes),
        recipe=FineTuneRecipe(seed=args.seed),
    )
    check_output_file(request.out)
    model = create_model(request)
    print_metrics(model.metadata.metrics)
    print(f"{request.out}, {request.out.with_suffix('.report.html')}")
    print(f"serve it: earmark-server --model {request.out}")
