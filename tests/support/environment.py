"""Settings and environment variables of the servers and commands that tests start."""

from __future__ import annotations

import os

ADMIT_ALWAYS = {"max_load": 1.0, "max_lag_s": 60.0}
"""Settings for tests that are not about overload: the server admits streams on a busy machine, too."""

_ADMIT_ALWAYS = {f"EARMARK_{name.upper()}": f"{value:g}" for name, value in ADMIT_ALWAYS.items()}


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process without settings of Earmark and gRPC, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EARMARK_", "GRPC_"))}
    return {**kept, **_ADMIT_ALWAYS, **variables}
