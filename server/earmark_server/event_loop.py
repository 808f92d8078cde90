"""The event loop: uvloop where there is one; and how gRPC reads beside it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Result = TypeVar("Result")


def read_on_one_thread() -> None:
    """Have gRPC read its connections on the one thread that serves the event loop; before gRPC is imported.

    It hands each read through a pool of threads otherwise, which costs half as much again (see
    benchmarks/README.md). Stands back where the environment has a choice of its own.
    """
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on a new loop, in this thread, to its end."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop
    except ImportError:
        factory = None  # Windows has none; asyncio's own does the same, more slowly.
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
