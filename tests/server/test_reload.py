"""Detection of changed files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from earmark_server.reload import ChangeDetector

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("before")
    return tmp_path / "file"


def test_a_file_that_is_only_read_has_not_changed(path: Path) -> None:
    detector = ChangeDetector(path)
    assert not detector.has_changed()
    path.read_text()
    assert not detector.has_changed()


def test_each_change_is_reported_once(path: Path) -> None:
    detector = ChangeDetector(path)
    path.write_text("longer than before")
    assert detector.has_changed()
    assert not detector.has_changed()


def test_a_replaced_file_has_changed_even_with_the_same_size_and_time(path: Path) -> None:
    detector = ChangeDetector(path)
    other = path.with_name("other")
    other.write_text("beford")
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert detector.has_changed()


def test_a_link_to_another_target_has_changed(path: Path) -> None:
    link, other = path.with_name("link"), path.with_name("other")
    other.write_text("before")
    link.symlink_to(path)
    detector = ChangeDetector(link)
    link.unlink()
    link.symlink_to(other)
    assert detector.has_changed()


def test_a_file_that_is_removed_and_restored_has_changed_twice(path: Path) -> None:
    detector = ChangeDetector(path)
    path.unlink()
    assert detector.has_changed()
    assert not detector.has_changed()
    path.write_text("before")
    assert detector.has_changed()
