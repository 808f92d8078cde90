"""`earmark classify`, `earmark models` and `earmark health`: one question, one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_client.addresses import DEFAULT_ADDRESS
from earmark_client.errors import InvalidRequestError, RecordingError
from earmark_client.events import Health

from earmark_cli.connection import connected
from earmark_cli.output.printer import JsonPrinter, Printer, TextPrinter

if TYPE_CHECKING:
    import argparse


def classify(args: argparse.Namespace) -> int:
    """Name each clip; 1 if any of them failed."""
    printer = _printer(args)
    failed = False
    with connected(args) as (_, client):
        for name in args.files:
            try:
                printer.classification(name, client.classify(name, model=args.model), args.top)
            except (RecordingError, InvalidRequestError) as error:
                printer.failure(name, error)
                failed = True
    return 1 if failed else 0


def models(args: argparse.Namespace) -> int:
    """List what is loaded."""
    printer = _printer(args)
    with connected(args) as (_, client):
        for model in client.list_models():
            printer.model(model)
    return 0


def health(args: argparse.Namespace) -> int:
    """Say whether the server serves, once or at every change; 0 only if it does."""
    printer = _printer(args)
    with connected(args, without=DEFAULT_ADDRESS) as (address, client):
        if args.watch:
            status = Health.UNKNOWN
            for status in client.watch_health():
                printer.health(address, status)
        else:
            status = client.health()
            printer.health(address, status)
    return 0 if status is Health.SERVING else 1


def _printer(args: argparse.Namespace) -> Printer:
    return JsonPrinter() if args.json else TextPrinter()
