"""The memory that a process may use: that of its control groups, of either version, else the machine's."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from earmark_server.memory import limit

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are of Linux")

MACHINE_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/memory.max": "4096\n", "a/b/memory.max": "max\n"}, 4096),
        ("0::/a/b\n", {"a/memory.max": "8192\n", "a/b/memory.max": "4096\n"}, 4096),
        ("0::/../host\n", {"memory.max": "4096\n"}, 4096),
        ("1:cpu:/x\n4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "4096\n"}, 4096),
        ("4:memory:/on/the/host\n", {"memory/memory.limit_in_bytes": "4096\n"}, 4096),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE_BYTES),
        ("0::/\n", {}, MACHINE_BYTES),
        ("", {}, MACHINE_BYTES),
    ],
)
def test_the_smallest_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "cgroup").write_text(membership)
    for name, content in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(content)
    monkeypatch.setattr(limit, "_MEMBERSHIPS", tmp_path / "cgroup")
    monkeypatch.setattr(limit, "_CGROUPS", tmp_path / "fs")
    assert limit.memory_limit_bytes() == expected


def test_the_resident_memory_grows_with_what_is_used() -> None:
    before = limit.resident_bytes()
    used = b"x" * (64 << 20)
    after = limit.resident_bytes()
    assert before is not None
    assert after is not None
    assert after - before > len(used) // 2
