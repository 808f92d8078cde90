"""`earmark-train thresholds`: choose the thresholds of a model file anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress

from earmark_training.commands.options import (
    add_corpus_option,
    check_model_file,
    fa_per_hour,
    model_name,
    print_metrics,
)

if TYPE_CHECKING:
    import argparse

SUMMARY = "Choose the thresholds of a model file anew, for other noises or another rate of false alarms."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_corpus_option(
        parser,
        "folder of a prepared corpus, with clips of the keywords by people whom the model does not know",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("calibrated.onnx"),
        metavar="FILE",
        help="model file to write (default: %(default)s)",
    )
    parser.add_argument("--version", type=model_name, help="version of the model (default: that of MODEL)")
    parser.add_argument(
        "--fa-per-hour",
        type=fa_per_hour,
        default=2.0,
        metavar="N",
        help="maximum false alarms per hour, as for `earmark-train export` (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the model file, and print its metrics."""
    from earmark_training.data.corpus import Corpus
    from earmark_training.evaluation.export import calibrate

    check_model_file(args.out, ".metrics.json")
    with Progress() as progress:
        model = calibrate(
            args.model,
            Corpus(args.corpus),
            args.out,
            version=args.version,
            fa_per_hour=args.fa_per_hour,
            progress=progress,
        )
    print_metrics(model.metadata.metrics)
    print(f"{args.out}: serve it: earmark-server --model {args.out}")
