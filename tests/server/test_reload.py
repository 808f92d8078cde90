"""Whether a file was replaced."""

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


def test_a_file_that_nobody_touches_has_not_changed(path: Path) -> None:
    detector = ChangeDetector(path)
    assert not detector.has_changed()
    path.read_text()
    assert not detector.has_changed()


def test_each_change_is_told_once(path: Path) -> None:
    detector = ChangeDetector(path)
    path.write_text("longer than before")
    assert detector.has_changed()
    assert not detector.has_changed()


def test_another_file_in_its_place_is_a_change_even_with_the_same_length_and_time(path: Path) -> None:
    detector = ChangeDetector(path)
    other = path.with_name("other")
    other.write_text("beford")
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert detector.has_changed()


def test_a_link_that_leads_elsewhere_is_a_change(path: Path) -> None:
    link, other = path.with_name("link"), path.with_name("other")
    other.write_text("before")
    link.symlink_to(path)
    detector = ChangeDetector(link)
    link.unlink()
    link.symlink_to(other)
    assert detector.has_changed()


def test_a_file_that_goes_away_and_comes_back_has_changed_twice(path: Path) -> None:
    detector = ChangeDetector(path)
    path.unlink()
    assert detector.has_changed()
    assert not detector.has_changed()
    path.write_text("before")
    assert detector.has_changed()
