"""`earmark record-keyword`: the command."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio.utterance import UtteranceError
from earmark_client.audio import Silence
from earmark_client.microphone import Microphone

from earmark_cli.options import add_command, channel_option, device_option, whole_number
from earmark_cli.output.console import is_terminal, notice, print_line, report_connection
from earmark_cli.record_keyword.take_finder import Take, TakeFinder
from earmark_cli.record_keyword.takes_folder import TakesFolder
from earmark_cli.usage_error import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from earmark_cli.options import Commands

_EXIT_INTERRUPTED = 130
_METER_CELLS, _METER_DB = 24, 48.0
_GIVE_UP_AFTER = 5


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "record-keyword",
        "record takes of a keyword, to train a model for it",
        run,
        device_option(),
        channel_option(),
    )
    parser.add_argument("keyword", metavar="WORD", help="the word, or the phrase in quotation marks")
    parser.add_argument(
        "--takes",
        type=whole_number(1, 1000),
        default=30,
        metavar="N",
        help="number of takes in the folder at the end, those that are there included (default: 30)",
    )
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder for the takes (default: WORD)")
    parser.epilog = (
        "Say the word once after each prompt. A take that is too quiet, clipped, cut off, or unlike the "
        "others is not kept, and you are asked again. Run the command again to go on, also with other "
        "people: the more voices, the better."
    )


def run(args: argparse.Namespace) -> int:
    """Record takes until there are enough; return 130 after Ctrl-C, which keeps those that are there."""
    keyword = " ".join(args.keyword.split())
    if not any(map(str.isalpha, keyword)):
        raise UsageError(f"{args.keyword!r} is not a word: give the keyword in letters, as it is spoken")
    folder = args.out or Path(keyword.replace("/", "-"))
    takes = TakesFolder(folder, keyword)
    if takes.count:
        print_line(f"{folder} has {takes.count} takes already")
    code = 0
    try:
        if takes.count < args.takes:
            microphone = Microphone(args.device, channel=args.channel, on_connection=report_connection)
            with microphone:
                code = 0 if _record(microphone, takes, keyword, args.takes) else 1
    except KeyboardInterrupt:
        code = _EXIT_INTERRUPTED
    _summarize(takes, keyword, args.takes)
    return code


def _record(microphone: Microphone, takes: TakesFolder, keyword: str, wanted: int) -> bool:
    """Ask for takes until there are enough; return False if no usable one comes any more."""
    blocks = iter(microphone)
    failed = 0
    while takes.count < wanted and failed < _GIVE_UP_AFTER:
        number = f"{takes.count + 1} of {wanted}"
        try:
            take = _listen_for_take(blocks, microphone.sample_rate_hz, f"{number}: say “{keyword}”")
            path = takes.add(take)
        except UtteranceError as error:
            failed += 1
            print_line(f"{number}: not kept: {error}")
            continue
        seconds = len(take.spoken) / take.sample_rate_hz
        if path is None:
            failed += 1
            print_line(f"{number}: not kept: it does not sound like the others: say it once more")
        else:
            failed = 0
            print_line(f"{number}: {path.name}  {seconds:.2f} s  peak {take.peak_db:.0f} dBFS")
    if failed:
        notice(f"earmark: {failed} takes in a row could not be used: see `earmark check --mic`")
    return not failed


def _listen_for_take(blocks: Iterator[bytes | Silence], sample_rate_hz: int, prompt: str) -> Take:
    """Prompt, and return the next take. Raises UtteranceError if it cannot be used."""
    finder = TakeFinder(sample_rate_hz)
    with _meter(prompt) as show:
        for block in blocks:
            if isinstance(block, Silence):  # the microphone is gone, or the machine was too busy
                finder = TakeFinder(sample_rate_hz)
                continue
            samples = (np.frombuffer(block, "<i2") / 32768).astype(np.float32)
            show(samples)
            if take := finder.push(samples):
                return take
    raise UtteranceError("the microphone stopped before a word was spoken")


@contextmanager
def _meter(prompt: str) -> Iterator[Callable[[NDArray[np.float32]], None]]:
    """Show a prompt, on a terminal with the level; yield a function that sets the level."""
    if not is_terminal(sys.stdout):
        print_line(prompt)
        yield lambda _: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(Text(prompt), console=Console(), transient=True, auto_refresh=False) as live:

        def show(samples: NDArray[np.float32]) -> None:
            peak = float(np.abs(samples).max(initial=0.0))
            share = 1 + 20 * np.log10(max(peak, 1e-6)) / _METER_DB
            cells = round(_METER_CELLS * min(1.0, max(0.0, share)))
            style = "red" if peak >= 1 else "green"
            bar = ("#" * cells, style), ("-" * (_METER_CELLS - cells), "dim")
            text = "clipped" if peak >= 1 else f"{20 * np.log10(max(peak, 1e-6)):.0f} dBFS"
            live.update(Text.assemble(f"{prompt}  ", *bar, f"  {text}"), refresh=True)

        yield show


def _summarize(takes: TakesFolder, keyword: str, wanted: int) -> None:
    word, folder = shlex.quote(keyword), shlex.quote(str(takes.folder))
    if takes.count < wanted:
        print_line(f"{takes.folder} has {takes.count} of {wanted} takes: run the command again to go on")
    else:
        print_line(f"{takes.folder} has {takes.count} takes. Train a model with them:")
        print_line(f"earmark-train keyword {word} --recordings {folder} --negatives SPEECH")
