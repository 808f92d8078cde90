"""A server that hangs on command: what is put in front of `earmark-server` and its workers for that.

Python imports a `sitecustomize` from PYTHONPATH first of all, so the product needs nothing for it. The
words for a process are in a file named by its id: "step" holds up its engine, "die" ends it, "lookup" holds
up its event loop.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SITECUSTOMIZE = """
import os, pathlib, sys, time

def said(word):
    file = pathlib.Path(__file__).with_name(str(os.getpid()))
    return file.exists() and file.read_text() == word

def hang_while_said(word):
    while said(word):
        time.sleep(0.01)

if "earmark_server" in sys.orig_argv:
    from earmark_spotter import SpotterModel
    from earmark_server.rpc import responses

    whole_step, whole_lookup = SpotterModel.step, responses.list_models_response

    def step(self, pcm, state):
        hang_while_said("step")
        if said("die"):
            raise SystemExit
        return whole_step(self, pcm, state)

    def lookup(models):
        hang_while_said("lookup")
        return whole_lookup(models)

    SpotterModel.step, responses.list_models_response = step, lookup
"""


class Hanging:
    """Makes processes hang that were started with its `environment`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        paths = (str(folder), os.environ.get("PYTHONPATH", ""))
        self.environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def say(self, pid: int, word: str) -> None:
        """Have a process hang or die."""
        self._folder.joinpath("new").write_text(word)
        self._folder.joinpath("new").replace(self._folder / str(pid))

    def release(self, pid: int) -> None:
        """Let a process go on."""
        self._folder.joinpath(str(pid)).unlink()
