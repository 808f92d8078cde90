"""`earmark-train train`: train a network, or resume a run that was interrupted."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import replace
from pathlib import Path

from earmark_audio.progress import Progress
from earmark_spotter.metadata import LABEL_RULE

from earmark_training.commands.options import add_corpus_option, check_output_folder, seed
from earmark_training.data.vocabulary import SILENCE, UNKNOWN, labels_for

SUMMARY = "Train a network. Run the same command again to resume a run that was interrupted."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_corpus_option(parser, "folder of the prepared corpus")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/default"),
        metavar="DIR",
        help="folder to write the checkpoint, the log and the learning curves to (default: %(default)s)",
    )
    parser.add_argument(
        "--preset",
        choices=("default", "continue", "quick"),
        default="default",
        help="training recipe (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=_epochs_per_cycle,
        metavar="N[,N...]",
        help="epochs in each learning-rate cycle; overrides the preset. A run goes on with the same command "
        "and a higher last number",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="MODEL",
        help="start with the network of this model file; required by the preset `continue` (the last cycle)",
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="random seed; overrides the preset")
    parser.add_argument(
        "--keywords",
        type=_keywords,
        metavar="A,B,..",
        help="words to train as keywords, all others become unknown; overrides the preset",
    )


def run(args: argparse.Namespace) -> None:
    """Train, then print the validation accuracy and the next command."""
    from earmark_training.data.corpus import Corpus
    from earmark_training.model.recipe import PRESETS
    from earmark_training.model.train import train

    recipe = PRESETS[args.preset]
    if args.epochs is not None:
        recipe = replace(recipe, cycles=args.epochs)
    if args.seed is not None:
        recipe = replace(recipe, seed=args.seed)
    if args.keywords is not None:
        recipe = replace(recipe, keywords=args.keywords)
    check_output_folder(args.out)
    with Progress() as progress:
        train(Corpus(args.corpus), recipe, args.out, args.start, progress=progress)
    accuracy = json.loads((args.out / "metrics.json").read_text())["validation_accuracy"]
    print(f"validation accuracy {accuracy:.2%}; next: earmark-train export {shlex.quote(str(args.out))}")


def _epochs_per_cycle(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers of 1 or more, such as 36,36,30")
    return tuple(map(int, parts))


def _keywords(text: str) -> tuple[str, ...]:
    keywords = tuple(text.split(","))
    for keyword in keywords:
        if not LABEL_RULE.pattern.fullmatch(keyword):
            raise argparse.ArgumentTypeError(f"the keyword {keyword!r} must be {LABEL_RULE.meaning}")
    labels = labels_for(keywords)
    repeated = [label for label in keywords if labels.count(label) > 1]
    if repeated:
        raise argparse.ArgumentTypeError(
            f"{repeated[0]!r} is a label twice: name each keyword once, and neither {SILENCE} nor {UNKNOWN}"
        )
    return keywords
