"""A server inside this process, for commands without --server.

This is the only module of the client that imports the server, and it does so only on demand.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from earmark_client.errors import EarmarkError, NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


@contextmanager
def serve() -> Iterator[str]:
    """Run a server in a thread of this process; yield its address.

    Raises NotInstalledError if the dependencies of the server are not installed.
    """
    try:
        # The server's package is part of every installation, its dependencies are an extra.
        context: AbstractContextManager[str] = import_module("earmark_server.embedded").serve_in_thread()
        address = context.__enter__()
    except ImportError as error:
        from earmark_audio.extras import install_command

        raise NotInstalledError(
            f"without --server a server must be started here, but {error.name} is not installed: "
            f"{install_command('server')}, or give --server HOST:PORT"
        ) from error
    except Exception as error:
        raise EarmarkError(f"the server inside this process did not start: {error}") from error
    try:
        yield address
    finally:
        context.__exit__(None, None, None)
