"""Review in the terminal: plays each clip, and reads one key."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark_client.errors import RecordingError

from earmark_cli.output.console import notice, print_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from earmark_cli.review.reviewed_clips import Clip, Verdict

_KEYS: dict[str, Verdict] = {"r": "right", "w": "wrong", "m": "missed"}
_HELP = (
    "r right, w wrong, m missed (right, but only with a lowered threshold), space again, b back, s skip, "
    "q quit"
)
_PLAYERS = (["aplay", "-q"], ["paplay"], ["afplay"], ["ffplay", "-v", "error", "-nodisp", "-autoexit"])


def review_in_terminal(clips: Sequence[Clip]) -> None:
    """Ask for a verdict on each clip; a key that is no command prints the keys."""
    player = next((list(one) for one in _PLAYERS if shutil.which(one[0])), None)
    if player is None:
        raise RecordingError(
            "no program that plays sound is installed (aplay, paplay, afplay or ffplay): use --page"
        )
    print_line(_HELP)
    position = 0
    with _single_keys():
        while position < len(clips):
            clip = clips[position]
            _print_clip(clip, position, len(clips))
            with _playing([*player, str(clip.path)]):
                key = _read_key()
            if key in _KEYS:
                clip.judge(_KEYS[key])
                print_line(f"    {clip.verdict}")
                position += 1
            elif key == "s":
                position += 1
            elif key == "b":
                position = max(0, position - 1)
            elif key in {"q", "", "\x04"}:
                return
            elif key != " ":
                notice(_HELP)


def _print_clip(clip: Clip, position: int, count: int) -> None:
    fields = clip.fields
    verdict = f"  ({clip.verdict})" if clip.verdict else ""
    print_line(
        f"{position + 1}/{count}  {fields.get('keyword')}  {float(fields.get('confidence', 0)):.2f}  "
        f"{fields.get('source')}, {float(fields.get('start_s', 0)):.2f} s{verdict}"
    )


@contextmanager
def _playing(command: list[str]) -> Iterator[None]:
    """Play a clip beside the block, and stop at its end."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def _single_keys() -> Iterator[None]:
    """Let a terminal return each key at once, without Return."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    saved = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


def _read_key() -> str:
    """Return the next key, an empty string at the end of the input; a line end is no key from a pipe."""
    key = sys.stdin.read(1).lower()
    while key == "\n" and not sys.stdin.isatty():
        key = sys.stdin.read(1).lower()
    return key
