"""`earmark-train verifier`: train a second network that checks the peaks of a model, and add it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress

from earmark_training.commands.options import (
    add_corpus_option,
    add_new_model_options,
    check_model_file,
    check_output_file,
    print_metrics,
    serving_command,
    whole_number,
)

if TYPE_CHECKING:
    import argparse

SUMMARY = "Add a verifier to a model file: a second network that decides which peaks are detections."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_corpus_option(parser, "folder of the prepared corpus that the model was trained on")
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="model file, which may have a verifier on audio"
    )
    add_new_model_options(parser, "verified.onnx")
    parser.add_argument(
        "--passes",
        type=whole_number(1),
        default=4,
        metavar="N",
        help="passes over the training speech, each in other surroundings (default: %(default)s)",
    )
    parser.add_argument(
        "--examples",
        type=whole_number(1),
        default=400_000,
        metavar="N",
        help="examples of the fine-tuning (default: %(default)s)",
    )
    parser.add_argument(
        "--encoded-steps",
        type=whole_number(1),
        default=8_000,
        metavar="N",
        help="batches of the training on features of the speech encoder (default: %(default)s)",
    )
    parser.add_argument(
        "--network",
        type=Path,
        metavar="FILE",
        help="file of the trained verifier: written after training, and used without training if it is there",
    )


def run(args: argparse.Namespace) -> None:
    """Train the verifier, write the model file, and print its metrics."""
    from earmark_training.data.corpus import Corpus
    from earmark_training.verifier.export import add_verifier

    check_model_file(args.out, ".metrics.json")
    if args.network is not None and not args.network.is_file():
        check_output_file(args.network)
    with Progress() as progress:
        model = add_verifier(
            args.model,
            Corpus(args.corpus),
            args.out,
            version=args.version,
            passes=args.passes,
            examples=args.examples,
            encoded_steps=args.encoded_steps,
            network_file=args.network,
            fa_per_hour=args.fa_per_hour,
            progress=progress,
        )
    print_metrics(model.metadata.metrics)
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB; serve it: {serving_command(args.out)}")
