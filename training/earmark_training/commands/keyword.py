"""`earmark-train keyword`: make a model for new keywords."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress
from earmark_spotter.metadata import LABEL_RULE

from earmark_training.commands.options import (
    check_model_file,
    fa_per_hour,
    language_code,
    model_name,
    print_metrics,
    seed,
    serving_command,
)
from earmark_training.keyword.voice_files import MODEL_FILE, RELEASE, VOICES_FILE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from earmark_training.keyword.training_set import NeuralVoices

SUMMARY = "Make a model for new keywords, from recordings of them or from their spelling."

_MAX_LETTERS = 64
_LANGUAGE = "en"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.set_defaults(usage_error=parser.error)
    parser.add_argument(
        "keyword",
        nargs="+",
        metavar="WORD",
        help="the word, or the phrase in quotation marks, as it is written; several make one model with all",
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="recordings of the keyword, one utterance per file, by several people (WAV, FLAC, Ogg, MP3, …); "
        "at least 8, better 100 or more. For several keywords: a folder with one folder of recordings per "
        "keyword, named as the keyword is written",
    )
    parser.add_argument(
        "--voices",
        type=Path,
        metavar="DIR",
        help=f"add the keyword and words that sound like it, read by the neural voices in this folder, "
        f"with or without recordings: {MODEL_FILE} and {VOICES_FILE} from {RELEASE}",
    )
    parser.add_argument(
        "--pronunciation",
        action="append",
        default=[],
        metavar="IPA",
        help="how the neural voices say the keyword, such as kəmpjˈuːɾɚ, a space between words (default: as "
        "eSpeak NG says it, or misaki in ja and zh); for one of several keywords WORD=IPA; repeatable",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder in which the speech of the neural voices is kept and found again "
        "(default: earmark/voices in the user's cache folder)",
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
        type=language_code,
        metavar="CODE",
        help="language of the synthesizers, such as en, de, fr-fr; the neural voices read en, en-gb, es, fr, "
        "hi, it, ja, pt and zh (default: en)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="model file to write (default: WORD.onnx)")
    parser.add_argument(
        "--name",
        type=model_name,
        help="name of the model (default: the keyword, in the letters A to Z; if it has others, with eight "
        "digits of its checksum)",
    )
    parser.add_argument(
        "--version",
        type=model_name,
        default="1.0.0",
        help="version of the model (default: %(default)s)",
    )
    parser.add_argument(
        "--fa-per-hour",
        type=fa_per_hour,
        default=0.5,
        metavar="N",
        help="false alarms per hour of speech that the threshold of each keyword is chosen for, the mean "
        "over clean speech, noise, other talkers, rooms and loudspeakers, at most twice as many in one of "
        "them (default: %(default)s)",
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
        help="a folder of clips that `earmark review` has marked: wrong ones are negatives (requires "
        "--negatives), and words that were missed are added to the recordings; repeatable",
    )
    parser.add_argument("--quick", action="store_true", help="skip the measurement of the miss rate")
    parser.add_argument(
        "--base",
        type=Path,
        metavar="FILE",
        help="fine-tune this model, body and head, instead of training a head on the speech embedding",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=1,
        metavar="N",
        help="random seed; the same seed makes the same model (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Make the model file and print its metrics."""
    from earmark_training.keyword.checkpoints import only_training_of
    from earmark_training.keyword.fine_tune import FineTuneRecipe
    from earmark_training.keyword.head_training import head_recipe
    from earmark_training.keyword.pipeline import KeywordRequest, create_model
    from earmark_training.keyword.recordings import RecordingsError
    from earmark_training.keyword.synthesis import available_voices

    _check_usage(args)
    for text in args.keyword:
        if any("\ud800" <= character <= "\udfff" for character in text):  # bytes that are not UTF-8
            raise RecordingsError(
                f"{text!r} is not valid UTF-8: correct it, or set the locale of the terminal"
            )
    keywords = _keywords(args.keyword, read=args.voices is not None)
    # A name with a dot or a dash before it would be hidden, or look like an option.
    name = "-".join(k.replace(" ", "-").replace("/", "-") for k in keywords).lstrip("-.")
    # Names of files are limited in bytes.
    out = args.out or Path(name.encode()[:100].decode(errors="ignore") + ".onnx")
    check_model_file(out, ".report.html", ".metrics.json")
    if args.synthesize:
        available_voices(args.language or _LANGUAGE, 1, seed=args.seed)  # raises SynthesisError
    request = KeywordRequest(
        recordings=_recordings(keywords, args.recordings, needed=args.voices is None),
        negatives=tuple(args.negatives),
        voices=_voices(keywords, args) if args.voices else None,
        synthesize=(args.language or _LANGUAGE) if args.synthesize else None,
        out=out,
        name=args.name,
        version=args.version,
        fa_per_hour=args.fa_per_hour,
        one_voice=args.one_voice,
        base=args.base,
        folds=0 if args.quick else 3,
        mistakes=tuple(args.mistakes),
        recipe=FineTuneRecipe(seed=args.seed) if args.base else head_recipe(args.seed),
    )
    with only_training_of(out), Progress() as progress:
        model = create_model(request, progress=progress)
    print_metrics(model.metadata.metrics)
    print(f"{request.out}, {request.out.with_suffix('.report.html')}")
    print(f"serve it: {serving_command(request.out)}")


def _check_usage(args: argparse.Namespace) -> None:
    """Exit with code 2 if the recordings are missing, or an option would have no effect."""
    voices, recordings = args.voices is not None, args.recordings is not None
    if not voices and not recordings:
        args.usage_error("use --recordings DIR, or --voices DIR to make the model from the spelling, or both")
    for option, is_given, is_used, needed in (
        ("--pronunciation", bool(args.pronunciation), voices, "--voices DIR"),
        ("--cache", args.cache is not None, voices, "--voices DIR"),
        ("--language", args.language is not None, voices or args.synthesize, "--voices DIR or --synthesize"),
        ("--one-voice", args.one_voice, recordings, "--recordings DIR"),
    ):
        if is_given and not is_used:
            args.usage_error(f"{option} has no effect without {needed}: add it, or leave {option} out")
    if args.one_voice and voices:
        args.usage_error("--one-voice has no effect with --voices, which add other voices: leave it out")


def _normalized(word: str) -> str:
    """Return a keyword with single spaces, in one Unicode form."""
    return " ".join(unicodedata.normalize("NFC", word).split())


def _keywords(words: Sequence[str], *, read: bool) -> list[str]:
    """Return the keywords with single spaces. Raises RecordingsError for one that is not a word.

    Those that voices `read` consist of letters alone.
    """
    from earmark_training.data.vocabulary import labels_for
    from earmark_training.keyword.letters import is_letter
    from earmark_training.keyword.recordings import RecordingsError

    keywords = [_normalized(word) for word in words]
    for keyword in keywords:
        strange = [repr(c) for c in sorted(set(keyword)) if not is_letter(c) and c not in " '’-."]
        is_label = LABEL_RULE.pattern.fullmatch(keyword[:_MAX_LETTERS].strip())
        if not any(c.isalpha() for c in keyword) or ((read or not is_label) and strange):
            problem = "is not a word"
            if len(strange) == 1:
                problem += f", because {strange[0]} is not a letter"
            elif strange:
                problem += f", because {', '.join(strange[:-1])} and {strange[-1]} are not letters"
            raise RecordingsError(
                f"{keyword!r} {problem}: give the keyword as it is spoken, in letters ('route sixty six', "
                "not 'route 66')"
            )
        if len(keyword) > _MAX_LETTERS:
            raise RecordingsError(
                f"{keyword[:20]!r}… has {len(keyword)} letters: a keyword has at most {_MAX_LETTERS}"
            )
        if keyword in labels_for(()):
            raise RecordingsError(
                f"{keyword!r} is the label of a class that every model has: choose another word"
            )
    if len(set(map(str.casefold, keywords))) < len(keywords):
        raise RecordingsError(f"a keyword is named twice: {', '.join(keywords)}")
    return keywords


def _recordings(keywords: Sequence[str], folder: Path | None, *, needed: bool) -> dict[str, Path | None]:
    """Return the folder of each keyword's recordings. Raises RecordingsError if one is needed and missing."""
    from earmark_training.keyword.recordings import RecordingsError

    if folder is None:
        return dict.fromkeys(keywords)
    if len(keywords) == 1:
        return {keywords[0]: folder}
    if not folder.is_dir():
        raise RecordingsError(f"{folder} is not a folder: name the folder of the keywords' folders")
    named = {_normalized(path.name): path for path in sorted(folder.iterdir()) if path.is_dir()}
    # As `earmark record-keyword` names a folder, whose name cannot have a slash.
    names = {k: k.replace("/", "-") for k in keywords}
    folders = {k: named.get(name) for k, name in names.items()}
    missing = [names[k] for k in keywords if folders[k] is None]
    if missing and (needed or len(missing) == len(keywords)):
        raise RecordingsError(
            f"{folder / missing[0]} is missing: for several keywords, each has a folder in {folder}"
        )
    return folders


def _voices(keywords: Sequence[str], args: argparse.Namespace) -> NeuralVoices:
    """Return the neural voices and the pronunciation of each keyword.

    Raises SynthesisError for a pronunciation that cannot be used, and for two keywords with the same one.
    """
    from earmark_training.keyword.kokoro import Kokoro, default_cache
    from earmark_training.keyword.pronunciation import (
        accents,
        check_letters,
        check_pronunciation,
        distance,
        joined,
        parse,
        pronounce,
    )
    from earmark_training.keyword.training_set import NeuralVoices
    from earmark_training.keyword.voice_files import SynthesisError

    language = args.language or _LANGUAGE
    spoken = dict(zip(keywords, pronounce(keywords, language), strict=True))
    other = {k: accents(k, language) for k in keywords}
    for given in args.pronunciation:
        word, _, ipa = given.rpartition("=") if "=" in given else (keywords[0], "", given)
        keyword = _normalized(word)
        if keyword not in spoken or ("=" not in given and len(keywords) > 1):
            raise SynthesisError(
                f"--pronunciation {given}: name one of the keywords ({', '.join(keywords)}) as in "
                f"'{keywords[0]}=IPA'"
            )
        if keyword not in other:
            raise SynthesisError(
                f"--pronunciation {given}: {keyword!r} has another one already: leave one out"
            )
        spoken[keyword] = parse(ipa, language)
        del other[keyword]
    for keyword in other:
        check_letters(keyword, language)
    reader = Kokoro(args.voices, args.cache or default_cache())
    for keyword, words in spoken.items():
        check_pronunciation(keyword, words, language, reader.unknown_symbols)
    for (one, first), (two, second) in itertools.combinations(spoken.items(), 2):
        if not distance(joined(first), joined(second)):
            raise SynthesisError(
                f"{one!r} and {two!r} are pronounced alike, so no model can tell them apart: leave one out"
            )
    return NeuralVoices(reader, language, spoken, other)
