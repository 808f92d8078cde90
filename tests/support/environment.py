"""The environment variables of processes that tests start."""

from __future__ import annotations

import os

NO_OVERLOAD = {"EARMARK_MAX_LOAD": "1", "EARMARK_MAX_LAG_S": "60"}
"""Settings with which a server on a busy machine admits streams, for tests that are not about overload."""


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process without settings of Earmark and gRPC, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EARMARK_", "GRPC_"))}
    return {**kept, **NO_OVERLOAD, **variables}
