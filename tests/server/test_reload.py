"""Detection of changed files, and values that are read again when they change."""

from __future__ import annotations

import asyncio
import errno
import os
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from earmark_server import reload
from earmark_server.reload import BadFileError, ChangeDetector, ReloadedFiles, read_file
from support.deadlines import DEADLINE_S, wait_until

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


def test_a_file_that_is_too_large_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark_server.reload._MAX_BYTES", 1 << 20)
    path.write_bytes(bytes((1 << 20) + 1))
    tracemalloc.start()
    with pytest.raises(BadFileError, match="has more than 1 MiB"):
        read_file(str(path), "model")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_folder_in_place_of_a_file_is_not_left_open(tmp_path: Path) -> None:
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)  # the lowest number that is free
    with pytest.raises(BadFileError, match=r"The model file .* cannot be read: Is a directory\."):
        read_file(str(tmp_path), "The model file")
    with open(os.devnull) as file:
        assert file.fileno() == number


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


def test_a_file_that_is_overwritten_has_changed_even_with_the_same_size_and_time(path: Path) -> None:
    detector = ChangeDetector(path)
    status = path.stat()
    wait_until(lambda: time.time_ns() - status.st_ctime_ns > 50_000_000, "a later time of the file system")
    path.write_text("beford")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` does
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


class Readings:
    """Results of `read` in turn; an error is raised. The last one stays."""

    def __init__(self, *results: str | Exception) -> None:
        self._results = list(results)

    def __call__(self) -> str:
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, Exception):
            raise result
        return result


@pytest.mark.parametrize(
    "error",
    [BadFileError("Too many open files"), OSError(errno.EMFILE, "Too many open files"), MemoryError()],
)
def test_a_change_that_could_not_be_read_is_read_at_the_next_check(
    path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    files = ReloadedFiles([str(path)], Readings("before", error, error, "after"))
    path.write_text("longer than before")
    for _ in range(2):
        assert not files.reload_if_changed()
        assert (files.value, files.is_usable) == ("before", False)
    assert files.reload_if_changed()
    assert (files.value, files.is_usable) == ("after", True)
    assert not files.reload_if_changed()
    assert caplog.messages == ["files rejected"]


def test_each_new_version_of_a_file_that_cannot_be_used_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = ReloadedFiles([str(path)], Readings("before", BadFileError("Line 1 is wrong")))
    for number in range(3):
        path.write_text("longer than before" * (number + 1))
        for _ in range(3):
            assert not files.reload_if_changed()
    assert caplog.messages == ["files rejected"] * 3


def test_a_file_in_a_folder_that_cannot_be_read_is_not_missing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "MISSING_GRACE_S", 0.0)
    files = ReloadedFiles([str(path)], lambda: "accepted", value_if_missing=lambda: "none")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        files.reload_if_changed()
    assert files.value == "accepted"
    path.unlink()
    files.reload_if_changed()
    assert files.value == "none"


def test_an_unexpected_error_does_not_end_the_checks(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reload, "_CHECK_INTERVAL_S", 0.001)
    files = ReloadedFiles([str(path)], Readings("before", RuntimeError("in read"), "after"))
    path.write_text("longer than before")

    async def scenario() -> None:
        called = asyncio.Event()
        errors = [RuntimeError("in on_reload")]

        def on_reload() -> None:
            if errors:
                raise errors.pop()
            called.set()

        task = asyncio.create_task(files.reload_forever(on_reload))
        await asyncio.wait_for(called.wait(), DEADLINE_S)
        task.cancel()

    asyncio.run(scenario())
    assert files.value == "after"
    stacks = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert stacks == ["in read", "in on_reload"]
