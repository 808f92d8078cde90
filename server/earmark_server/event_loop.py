"""Runs the event loop, on uvloop where it is available, and configures how gRPC reads beside it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Result = TypeVar("Result")


def read_on_one_thread() -> None:
    """Make gRPC read its connections on the one thread that serves the event loop.

    Call this before gRPC is imported. By default gRPC passes each read through a pool of threads, which costs
    half as much again (see benchmarks/README.md). A value in the environment takes precedence.
    """
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to completion on a new loop in this thread, and return its result."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop
    except ImportError:
        factory = None  # uvloop does not support Windows. The loop of asyncio works too, but is slower.
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
