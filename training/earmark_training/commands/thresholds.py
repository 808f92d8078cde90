"""`earmark-train thresholds`: choose the thresholds of a model file again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress

from earmark_training.commands.options import (
    add_corpus_option,
    add_new_model_options,
    check_model_file,
    print_metrics,
    serving_command,
)

if TYPE_CHECKING:
    import argparse

SUMMARY = "Choose the thresholds of a model file again, for other noises or another rate of false alarms."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_corpus_option(
        parser,
        "folder of a prepared corpus, with clips of the keywords by people whom the model does not know",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file")
    add_new_model_options(parser, "calibrated.onnx")


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
    print(f"{args.out}: serve it: {serving_command(args.out)}")
