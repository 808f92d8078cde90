"""gRPC's reads and writes, which must not be cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

Result = TypeVar("Result")


async def left_to_end(operation: Awaitable[Result]) -> Result:
    """Wait for a read or a write; if that is cancelled, leave it to itself, for it ends with its call.

    gRPC never frees what it holds of an operation whose task was cancelled (grpc/grpc#43360): about
    100 bytes and the message, and many streams are cancelled while they are read.
    """
    result = await asyncio.shield(_outcome(operation))
    if isinstance(result, Exception):
        raise result
    return result


async def _outcome(operation: Awaitable[Result]) -> Result | Exception:
    try:
        return await operation
    except Exception as error:  # there may be nobody left to be told
        return error
