"""A server that hangs on command: code that `earmark-server` and its workers load for that.

Python imports `sitecustomize` from PYTHONPATH at the start, so that the product needs no code for it. The
commands for a process are in a file named by its id: "step" blocks its engine, "die" ends it, "lookup" blocks
its event loop, and "stop" lets it wait for ever for gRPC to stop.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SITECUSTOMIZE = """
import asyncio, os, pathlib, sys, time

def requested(word):
    file = pathlib.Path(__file__).with_name(str(os.getpid()))
    return file.exists() and file.read_text() == word

def hang_while_said(word):
    while requested(word):
        time.sleep(0.01)

if "earmark_server" in sys.orig_argv:
    from earmark_spotter import SpotterModel
    from earmark_server.rpc import responses
    from earmark_server.server import Server

    whole_step, whole_lookup = SpotterModel.step, responses.list_models_response
    whole_stop = Server._stop_grpc

    def step(self, pcm, state):
        hang_while_said("step")
        if requested("die"):
            raise SystemExit
        return whole_step(self, pcm, state)

    def lookup(models):
        hang_while_said("lookup")
        return whole_lookup(models)

    async def stop(self, grace_s):
        while requested("stop"):
            await asyncio.sleep(0.01)
        await whole_stop(self, grace_s)

    SpotterModel.step, responses.list_models_response = step, lookup
    Server._stop_grpc = stop
"""


class Hanging:
    """Lets processes hang that were started with its `environment`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        paths = (str(folder), os.environ.get("PYTHONPATH", ""))
        self.environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def say(self, pid: int, word: str) -> None:
        """Let a process hang or die."""
        self._folder.joinpath("new").write_text(word)
        self._folder.joinpath("new").replace(self._folder / str(pid))

    def release(self, pid: int) -> None:
        """Let a process continue."""
        self._folder.joinpath(str(pid)).unlink()
