"""Imports of the package, which must be fast."""

from __future__ import annotations

from support.earmark_command import python_process


def test_every_public_name_exists_and_is_imported_on_first_use() -> None:
    done = python_process(
        "import sys, earmark_client\n"
        "print('grpc' in sys.modules)\n"
        "print(all(getattr(earmark_client, name) is not None for name in earmark_client.__all__))\n"
        "print(set(earmark_client.__all__) <= set(dir(earmark_client)))"
    )
    assert (done.stdout, done.stderr) == ("False\nTrue\nTrue\n", "")
