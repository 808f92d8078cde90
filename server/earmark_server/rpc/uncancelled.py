"""Reads and writes of gRPC, which must not be cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

Result = TypeVar("Result")


async def uncancelled(operation: Awaitable[Result]) -> Result:
    """Wait for a read or a write. If the wait is cancelled, the operation continues and ends with its call.

    gRPC never frees the memory of an operation whose task was cancelled (grpc/grpc#43360): about 100 bytes
    and the message. Many streams are cancelled while they are read.
    """
    result = await asyncio.shield(_result_or_error(operation))
    if isinstance(result, Exception):
        raise result
    return result


async def _result_or_error(operation: Awaitable[Result]) -> Result | Exception:
    try:
        return await operation
    except Exception as error:  # raised by `uncancelled`, unless it was cancelled
        return error
