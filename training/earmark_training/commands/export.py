"""`earmark-train export`: write the model file of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress
from earmark_spotter.metadata import NAME_RULE

from earmark_training.commands.options import (
    add_corpus_option,
    check_model_file,
    fa_per_hour,
    model_name,
    print_metrics,
    serving_command,
)
from earmark_training.errors import OutputError

if TYPE_CHECKING:
    import argparse

SUMMARY = "Write the model file: verify the ONNX graph, choose the thresholds, and measure the accuracy."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_corpus_option(parser, "folder of the prepared corpus")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `earmark-train train` wrote")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("model.onnx"),
        metavar="FILE",
        help="model file to write (default: %(default)s)",
    )
    parser.add_argument("--name", type=model_name, help="name of the model (default: that of the folder RUN)")
    parser.add_argument(
        "--version", type=model_name, default="1.0.0", help="version of the model (default: %(default)s)"
    )
    parser.add_argument(
        "--sources",
        type=Path,
        metavar="FILE",
        help="JSON file of the data sets that the model was trained on, each with name, license and "
        "attribution, for the model file and its card: training/sources.json is that of the bundled model",
    )
    parser.add_argument(
        "--fa-per-hour",
        type=fa_per_hour,
        default=2.0,
        metavar="N",
        help="maximum false alarms per hour of read speech, all keywords together, used to choose the "
        "thresholds: the mean over clean speech, noise, babble, a room, a telephone and a television; "
        "false alarms in noise without speech are weighed, too (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Export the run and print its metrics."""
    from earmark_training.data.corpus import Corpus
    from earmark_training.evaluation.export import export_model, read_sources
    from earmark_training.model.checkpoint import load_trained

    check_model_file(args.out, ".metrics.json")
    name = args.name or args.run.resolve().name
    if not NAME_RULE.pattern.fullmatch(name):
        raise OutputError(
            f"the model cannot have the name of the folder, {name!r}: use --name, with {NAME_RULE.meaning}"
        )
    sources = read_sources(args.sources) if args.sources else ()
    with Progress() as progress:
        model = export_model(
            load_trained(args.run),
            Corpus(args.corpus),
            args.out,
            name=name,
            version=args.version,
            fa_per_hour=args.fa_per_hour,
            sources=sources,
            progress=progress,
        )
    print_metrics(model.metadata.metrics)
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB; serve it: {serving_command(args.out)}")
