"""The `earmark-train` command: prepare, train, evaluate, export, keyword."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_spotter import SpotterError

from earmark_training.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.metadata import Metric


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="earmark-train",
        description="Train a keyword model, from recordings to the file that earmark-server serves.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=help_text,
            description=help_text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    prepare = command("prepare", "Decode the recordings once into one file that training reads.")
    source = prepare.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--clips",
        type=Path,
        metavar="DIR",
        help="clips laid out <word>/<speaker>_nohash_<n>.<wav|flac|ogg|opus>",
    )
    source.add_argument("--download", type=Path, metavar="DIR", help="fetch Speech Commands v0.02 into DIR")
    prepare.add_argument(
        "--speech", type=Path, action="append", metavar="DIR", default=[],
        help="read speech with transcripts in LibriSpeech's layout, as what is no keyword; repeatable",
    )  # fmt: skip
    _corpus_argument(prepare, "where to write")

    train = command("train", "Train a network; the same command goes on with a run that was stopped.")
    _corpus_argument(train, "the prepared data")
    train.add_argument(
        "--out", type=Path, default=Path("runs/default"), metavar="DIR", help="checkpoint, log, curves"
    )
    train.add_argument("--preset", choices=("default", "quick"), default="default", help="the recipe")
    train.add_argument(
        "--epochs", type=_cycles, metavar="N[,N...]", help="of each cycle, instead of the preset's"
    )
    train.add_argument("--seed", type=int, metavar="N", help="instead of the preset's")
    train.add_argument(
        "--keywords", metavar="A,B,..", help="instead of the preset's; other words become unknown"
    )

    export = command("export", "Write the model file: checked, calibrated, and with its measured figures.")
    _corpus_argument(export, "the prepared data")
    export.add_argument("run", type=Path, metavar="RUN", help="the folder that `train` wrote")
    export.add_argument("--out", type=Path, default=Path("model.onnx"), metavar="FILE", help="the model file")
    export.add_argument("--name", default="earmark-en", help="the model's name")
    export.add_argument("--version", default="1.0.0", help="the model's version")
    export.add_argument(
        "--fa-per-hour", type=float, default=2.0, metavar="N",
        help="false alarms per hour of read speech that the thresholds may give, all keywords together",
    )  # fmt: skip

    evaluate = command(
        "evaluate",
        "Measure a model file as it is served: clips, streams with noise, false alarms in read speech and in "
        "sounds that nobody speaks in. On the prepared data's validation speakers, or on folders given.",
    )
    evaluate.add_argument("model", type=Path, metavar="MODEL", help="the model file")
    _corpus_argument(evaluate, "the prepared data; not used where folders are given")
    evaluate.add_argument(
        "--clips", type=Path, metavar="DIR",
        help="measure on these instead: clips as in Speech Commands, with its list files or its published "
        "12-class test archive",
    )  # fmt: skip
    evaluate.add_argument(
        "--split", choices=("validation", "testing"),
        help="which of the clips in DIR; without it, testing if there is such a split",
    )  # fmt: skip
    evaluate.add_argument(
        "--speech", type=Path, action="append", metavar="DIR", default=[],
        help="measure false alarms in this read speech, all of it, in LibriSpeech's layout; repeatable",
    )  # fmt: skip
    evaluate.add_argument(
        "--seed", type=int, default=7, metavar="N", help="which streams are made of the clips"
    )
    evaluate.add_argument(
        "--fa-per-hour", type=float, default=2.0, metavar="N",
        help="the operating point at which thresholds are cross-validated between speakers",
    )  # fmt: skip
    evaluate.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write report.html, a page that stands alone, metrics.json and model_card.md",
    )
    keyword = command("keyword", "Teach the model that comes with the package a word of your own.")
    keyword.add_argument("keyword", metavar="WORD", help="the word or phrase, as it is written")
    keyword.add_argument(
        "--recordings", type=Path, required=True, metavar="DIR",
        help="recordings of it, one utterance each, of several people (WAV, FLAC, Ogg, MP3, …); tens or more",
    )  # fmt: skip
    keyword.add_argument(
        "--negatives", type=Path, action="append", metavar="DIR", default=[],
        help="hours of speech without it: any audio, in folders within folders (transcripts in LibriSpeech's "
        "layout are used where there are any); repeatable. Without it synthesizers read some, which is worse",
    )  # fmt: skip
    keyword.add_argument(
        "--synthesize", action="store_true",
        help="let installed synthesizers (espeak-ng, flite, festival) say it too, and what sounds like it: "
        "better with ten recordings, worse with thirty",
    )  # fmt: skip
    keyword.add_argument(
        "--language", default="en", metavar="CODE", help="of the synthesizers, as en, de, fr-fr"
    )
    keyword.add_argument("--out", type=Path, metavar="FILE", help="the model file (default: WORD.onnx)")
    keyword.add_argument("--name", help="the model's name (default: the word)")
    keyword.add_argument("--version", default="1.0.0", help="the model's version")
    keyword.add_argument(
        "--fa-per-hour", type=float, default=0.5, metavar="N",
        help="false alarms per hour of speech that the threshold may give",
    )  # fmt: skip
    keyword.add_argument(
        "--one-voice", action="store_true", help="it is for one person, who made the recordings"
    )
    keyword.add_argument(
        "--quick", action="store_true", help="do not measure how many of the recordings it misses"
    )
    keyword.add_argument("--base", type=Path, metavar="FILE", help="begin with this model instead")
    keyword.add_argument("--seed", type=int, default=1, metavar="N", help="the same gives the same model")
    return parser


def _corpus_argument(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument("--corpus", type=Path, default=Path("data/corpus"), metavar="DIR", help=help_text)


def _cycles(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: whole numbers from 1 on, such as 36,36,30")
    return tuple(map(int, parts))


def _prepare(args: argparse.Namespace) -> None:
    from earmark_training.data.corpus import prepare

    clips = args.clips
    if args.download:
        from torchaudio.datasets import SPEECHCOMMANDS

        args.download.mkdir(parents=True, exist_ok=True)
        data = SPEECHCOMMANDS(args.download, download=True)
        clips = Path(data._path)
    corpus = prepare(clips, args.speech, args.corpus)
    seconds = sum(r.length for r in corpus.recordings) / 16_000
    print(f"{len(corpus.recordings)} recordings, {seconds / 3600:.1f} h, in {args.corpus}")


def _train(args: argparse.Namespace) -> None:
    from earmark_training.data.corpus import Corpus
    from earmark_training.model.recipe import PRESETS
    from earmark_training.model.train import train

    recipe = PRESETS[args.preset]
    if args.epochs is not None:
        recipe = replace(recipe, cycles=args.epochs)
    if args.seed is not None:
        recipe = replace(recipe, seed=args.seed)
    if args.keywords:
        recipe = replace(recipe, keywords=tuple(args.keywords.split(",")))
    train(Corpus(args.corpus), recipe, args.out)
    accuracy = json.loads((args.out / "metrics.json").read_text())["validation_accuracy"]
    print(f"{accuracy:.2%} of the validation clips right; next: earmark-train export {args.out}")


def _export(args: argparse.Namespace) -> None:
    from earmark_training.data.corpus import Corpus
    from earmark_training.model.export import export
    from earmark_training.model.train import load_trained

    model = export(
        load_trained(args.run),
        Corpus(args.corpus),
        args.out,
        name=args.name,
        version=args.version,
        fa_per_hour=args.fa_per_hour,
    )
    _print_figures(model.metadata.metrics)
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB; serve it: earmark-server --model {args.out}")


def _evaluate(args: argparse.Namespace) -> None:
    from tempfile import TemporaryDirectory

    from earmark_spotter import SpotterModel

    from earmark_training.data.corpus import Corpus
    from earmark_training.evaluation.evaluate import evaluate
    from earmark_training.evaluation.test_material import from_folders, prepared
    from earmark_training.reporting.model_card import new_card
    from earmark_training.reporting.report import write_report
    from earmark_training.reporting.tables import tables_of

    model = SpotterModel.load(args.model)
    with TemporaryDirectory(prefix="earmark-") as scratch:
        if args.clips or args.speech:
            material = from_folders(args.clips, args.speech, args.split, Path(scratch))
        else:
            material = prepared(Corpus(args.corpus))
        _, document = evaluate(model, material, seed=args.seed, fa_per_hour=args.fa_per_hour)
    print(f"{document['model']} {document['version']}, measured on {material.description}\n")
    for table in tables_of(document):
        print(table.text() + "\n")
    if args.out:
        write_report(document, args.out)
        (args.out / "model_card.md").write_text(new_card(model.metadata, document))
        print(
            f"{args.out}/report.html shows this with curves; metrics.json and model_card.md have the figures"
        )


def _keyword(args: argparse.Namespace) -> None:
    from earmark_training.keyword.command import Request, teach
    from earmark_training.keyword.fine_tune import Tuning

    request = Request(
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
        checks=0 if args.quick else 3,
        tuning=Tuning(seed=args.seed),
    )
    model = teach(request)
    _print_figures(model.metadata.metrics)
    print(f"{request.out}, {request.out.with_suffix('.report.html')}")
    print(f"serve it: earmark-server --model {request.out}")


def _print_figures(figures: Sequence[Metric]) -> None:
    for figure in figures:
        print(f"{figure.name:24} {figure.value:8.4f}  {figure.description}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for a failure, 2 for wrong usage, 130 for an interrupt."""
    args = build_parser().parse_args(argv)
    # Our own progress, but not what the exporter tells of every node.
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("earmark_training").setLevel(logging.INFO)
    try:
        {
            "prepare": _prepare,
            "train": _train,
            "export": _export,
            "evaluate": _evaluate,
            "keyword": _keyword,
        }[args.command](args)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from the last whole epoch" if args.command == "train" else ""
        print(f"earmark-train: interrupted{goes_on}", file=sys.stderr)
        return 130
    except (SpotterError, TrainingError, OSError) as error:
        print(f"earmark-train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
