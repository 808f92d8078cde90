"""`earmark demo`: spot keywords in the bundled recording."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client.recording import Recording

from earmark_cli.actions.detection_actions import DetectionActions
from earmark_cli.keyword_options import keyword_options
from earmark_cli.options import add_command, json_option, models_option, server_options, stream_options
from earmark_cli.output.console import notice
from earmark_cli.stream_runner import block_length_s, stream_recordings

if TYPE_CHECKING:
    import argparse

    from earmark_cli.options import Commands

RECORDING = Path(__file__).with_name("samples") / "demo.flac"

_NEXT = (
    "Next: `earmark listen` spots keywords in the audio of your microphone, `earmark spot FILE` in a",
    "recording, `earmark web` on a page. `earmark-train keyword --help` says how to train your keyword.",
)


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "demo",
        "spot keywords in the bundled recording",
        run,
        server_options(),
        json_option(),
        models_option(),
        keyword_options(),
        stream_options(),
    )
    parser.add_argument(
        "--fast", action="store_true", help="send the audio as fast as possible (default: in real time)"
    )


def run(args: argparse.Namespace) -> int:
    """Stream the bundled recording."""
    transcript = json.loads(RECORDING.with_suffix(".json").read_text())
    keywords = ", ".join(line["keyword"] for line in transcript["said"] if line["keyword"])
    notice(
        f"{RECORDING.name}: {transcript['duration_s']:.0f} s of synthetic speech with the keywords {keywords}"
    )
    in_real_time = not args.fast
    source = partial(Recording, RECORDING, block_s=block_length_s(in_real_time=in_real_time))
    code = stream_recordings(
        [(RECORDING.name, source)], args, in_real_time=in_real_time, actions=DetectionActions()
    )
    if code == 0:
        for line in _NEXT:
            notice(line)
    return code
