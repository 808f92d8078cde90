"""`earmark-train evaluate`: measure a model file and report the results."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress

from earmark_training.commands.options import add_corpus_option, check_output_folder, fa_per_hour, seed

if TYPE_CHECKING:
    import argparse

SUMMARY = (
    "Measure a model file as it is served: classification accuracy, recall at several SNRs, false alarms."
)

_FA_PER_HOUR = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.set_defaults(usage_error=parser.error)
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file to measure")
    add_corpus_option(
        parser, "prepared corpus; without --clips and --speech, its validation speakers are used"
    )
    parser.add_argument(
        "--clips",
        type=Path,
        metavar="DIR",
        help="measure on these clips: the layout of Speech Commands with its list files, or its published "
        "12-class test archive",
    )
    parser.add_argument(
        "--split",
        choices=("validation", "testing"),
        help="which clips in DIR to use (default: testing if there are any, else validation)",
    )
    parser.add_argument(
        "--speech",
        type=Path,
        action="append",
        metavar="DIR",
        default=[],
        help="count false alarms in all of this read speech, in LibriSpeech's layout; repeatable",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=7,
        metavar="N",
        help="random seed of the streams made from the clips (default: %(default)s)",
    )
    parser.add_argument(
        "--fa-per-hour",
        type=fa_per_hour,
        metavar="N",
        help="operating point, in false alarms per hour, of the cross-validation between speakers "
        f"of the prepared corpus (default: {_FA_PER_HOUR:g})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write report.html (one self-contained page), metrics.json and model_card.md to",
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate the model, print the tables, and write the report with `--out`."""
    if args.split is not None and args.clips is None:
        args.usage_error("--split has no effect without --clips DIR: add it, or leave --split out")
    if args.fa_per_hour is not None and (args.clips or args.speech):
        args.usage_error(
            "--fa-per-hour has no effect with --clips or --speech: it is for the cross-validation of the "
            "prepared corpus, so leave it out"
        )
    from earmark_spotter import SpotterModel

    from earmark_training.data.corpus import Corpus
    from earmark_training.evaluation.evaluate import evaluate
    from earmark_training.evaluation.evaluation_set import from_corpus, from_folders
    from earmark_training.output_files import replace_file
    from earmark_training.reporting.model_card import new_card
    from earmark_training.reporting.report import write_report
    from earmark_training.reporting.tables import tables_of

    if args.out:
        check_output_folder(args.out)
    model = SpotterModel.load(args.model)
    with Progress() as progress, TemporaryDirectory(prefix="earmark-") as scratch:
        if args.clips or args.speech:
            evaluation_set = from_folders(
                args.clips, args.speech, args.split, Path(scratch), progress=progress
            )
        else:
            evaluation_set = from_corpus(Corpus(args.corpus))
        _, document = evaluate(
            model,
            evaluation_set,
            seed=args.seed,
            fa_per_hour=args.fa_per_hour or _FA_PER_HOUR,
            progress=progress,
        )
    print(f"{document['model']} {document['version']}, measured on {evaluation_set.description}\n")
    for table in tables_of(document):
        print(table.text() + "\n")
    if args.out:
        write_report(document, args.out)
        replace_file(args.out / "model_card.md", new_card(model.metadata, document).encode())
        print(
            f"{args.out}/report.html has these tables and the curves; metrics.json and model_card.md are "
            "beside it"
        )
