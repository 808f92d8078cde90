"""`earmark check`: describe recordings, the microphone and the installation, for bug reports."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from earmark_audio import FORMATS_HELP
from earmark_client.errors import EarmarkError

from earmark_cli.check.audio import check_microphone, check_recording
from earmark_cli.check.installation import describe_installation
from earmark_cli.options import add_command, device_option, json_option, positive_seconds
from earmark_cli.output.console import print_line
from earmark_cli.output.printer import make_printer, print_json
from earmark_cli.usage_error import check_required

if TYPE_CHECKING:
    import argparse

    from earmark_cli.check.audio import AudioReport
    from earmark_cli.check.installation import Installation
    from earmark_cli.options import Commands

_NAME_COLUMNS = 12
_RECORDED_S = 3.0


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "check",
        "describe recordings, the microphone and the installation, for bug reports",
        run,
        json_option(),
        device_option(),
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help=f"a recording: {FORMATS_HELP}. - reads a recording from standard input",
    )
    parser.add_argument("--mic", action="store_true", help="record from the microphone, and describe that")
    parser.add_argument(
        "--duration",
        type=positive_seconds,
        metavar="SECONDS",
        help=f"how long to record from the microphone (default: {_RECORDED_S:g})",
    )


def run(args: argparse.Namespace) -> int:
    """Print one report for each recording, for the microphone, and for the installation; 1 if one failed."""
    if not args.mic:
        check_required(args, ("duration", "device"), "--mic")
    printer = make_printer(args)
    failed = False
    for name in [*args.files, *([None] if args.mic else [])]:
        try:
            report = (
                check_microphone(args.device, args.duration or _RECORDED_S)
                if name is None
                else check_recording(name)
            )
        except EarmarkError as error:
            printer.failure("microphone" if name is None else name, error)
            failed = True
            continue
        failed |= report.problem is not None
        if not args.json:
            _print_audio(report)
            continue
        described = asdict(report)
        del described["notices"], described["problem"]  # each has its own line
        print_json("audio", **described)
        for one in report.notices:
            printer.warning(report.source, one)
        if report.problem:
            printer.failure(report.source, report.problem)
    _print_installation(describe_installation(), as_json=args.json)
    return 1 if failed else 0


def _print_audio(report: AudioReport) -> None:
    stated = "" if report.stated_s is None else f"; the header states {report.stated_s:.2f} s"
    print_line(report.source)
    _print_row("container", report.container)
    _print_row("codec", f"{report.codec}, decoded by {report.decoder}")
    _print_row("sample rate", f"{report.sample_rate_hz} Hz")
    _print_row("channels", f"{report.channels}{', which cancel each other' * report.channels_cancel}")
    _print_row("length", f"{report.found_s:.2f} s{stated}")
    _print_row("level", f"{_decibels(report.level_dbfs)}, peak {_decibels(report.peak_dbfs)}")
    _print_row("clipped", f"{100 * report.clipped_share:.2f}% of the samples")
    _print_row("DC offset", f"{100 * report.dc:+.2f}% of full scale")
    for one in report.notices:
        _print_row("notice", one.message)
    if report.problem:
        _print_row("problem", str(report.problem).removeprefix(f"{report.source}: "))


def _print_installation(installation: Installation, *, as_json: bool) -> None:
    if as_json:
        print_json("installation", **asdict(installation))
        return
    print_line("installation")
    _print_row("earmark", f"{installation.version}, Python {installation.python}, {installation.platform}")
    printed: set[str] = set()
    for extra, packages in {"client": installation.client, **installation.extras}.items():
        versions = [
            f"{name} {version or 'missing'}" for name, version in packages.items() if name not in printed
        ]
        _print_row(extra, ", ".join(versions) if any(packages.values()) else "not installed")
        printed |= packages.keys()
    _print_row("ffmpeg", installation.ffmpeg or "not installed")
    _print_row("microphone", installation.microphone)
    _print_row("variables", ", ".join(installation.variables) or "none")


def _print_row(name: str, value: str) -> None:
    print_line(f"  {name:<{_NAME_COLUMNS}} {value}")


def _decibels(value: float | None) -> str:
    return "digital silence" if value is None else f"{value:.1f} dBFS"
