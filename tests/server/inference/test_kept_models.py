"""Copies of models on disk: private, bounded, and found by the next process."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING

import pytest
from earmark_server.inference import kept_models
from earmark_server.inference.kept_models import KeptModels
from earmark_server.reload import BadFileError

if TYPE_CHECKING:
    from pathlib import Path


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def expire(folder: Path, content: bytes) -> None:
    os.utime(folder / f"{digest(content)}.onnx", (0, 0))


def test_a_copy_is_private_and_named_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "models"
    before = os.umask(0)
    try:
        kept = KeptModels(folder, 60)
        kept.keep(b"a model")
    finally:
        os.umask(before)
    (copy,) = folder.iterdir()
    assert copy.name == f"{digest(b'a model')}.onnx"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert KeptModels(folder, 60).read(digest(b"a model")) == b"a model"


@pytest.mark.parametrize("damage", [b"", b"a mod", b"another"])
def test_a_damaged_copy_is_not_returned_and_is_repaired(tmp_path: Path, damage: bytes) -> None:
    kept = KeptModels(tmp_path / "kept", 60)
    kept.keep(b"a model")
    sha256 = digest(b"a model")
    (tmp_path / "kept" / f"{sha256}.onnx").write_bytes(damage)
    with pytest.raises(BadFileError, match=f"{sha256}.onnx is damaged"):
        kept.read(sha256)
    kept.keep(b"a model")
    assert kept.read(sha256) == b"a model"


def test_a_pipe_in_place_of_a_copy_does_not_block(tmp_path: Path) -> None:
    kept = KeptModels(tmp_path, 60)
    os.mkfifo(tmp_path / f"{digest(b'a model')}.onnx")
    with pytest.raises(BadFileError, match="must be a regular file"):
        kept.read(digest(b"a model"))
    kept.keep(b"a model")
    assert kept.read(digest(b"a model")) == b"a model"


def test_copies_expire_unless_they_are_in_use(tmp_path: Path) -> None:
    kept = KeptModels(tmp_path, 60)
    for content in (b"expired", b"in use", b"extended", b"kept"):
        kept.keep(content)
    for content in (b"expired", b"in use", b"extended"):
        expire(tmp_path, content)
    kept.extend([digest(b"extended"), digest(b"never kept")])
    assert set(kept.digests()) == {digest(b"extended"), digest(b"kept")}
    kept.remove_expired({digest(b"in use")})
    assert {path.stem for path in tmp_path.iterdir()} == {
        digest(b"in use"),
        digest(b"extended"),
        digest(b"kept"),
    }


def test_a_copy_lives_as_long_as_the_longest_server_asks(tmp_path: Path) -> None:
    KeptModels(tmp_path, 3600).keep(b"a model")
    KeptModels(tmp_path, 1).remove_expired(())
    (copy,) = tmp_path.iterdir()
    assert copy.stat().st_mtime > time.time() + 3600


@pytest.mark.parametrize("limit", [("_MAX_COPIES", 3), ("_MAX_BYTES", 3 * 1000)])
def test_the_copies_are_bounded_and_those_in_use_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: tuple[str, int]
) -> None:
    monkeypatch.setattr(kept_models, *limit)
    kept = KeptModels(tmp_path, 60)
    contents = [str(i).encode().ljust(1000) for i in range(6)]
    for i, content in enumerate(contents):
        kept.keep(content)
        soon = time.time() + 10 + i
        os.utime(tmp_path / f"{digest(content)}.onnx", (soon, soon))
    # Those in use do not count.
    kept.remove_expired({digest(content) for content in contents[3:]})
    assert len(list(tmp_path.iterdir())) == 6
    kept.remove_expired({digest(contents[0])})
    # The first one is in use; of the others, those that expire last stay.
    assert {path.stem for path in tmp_path.iterdir()} == {digest(contents[i]) for i in (0, 3, 4, 5)}


def test_what_a_killed_process_left_behind_is_removed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptModels(tmp_path, 60)
    (tmp_path / ".partial-x").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    kept.remove_expired(())
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(kept_models, "_PARTIAL_LIFE_S", -1.0)
    kept.remove_expired(())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_others_may_write_to_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name, problem in (("open", "no other user"), ("link", "must belong"), ("file", "File exists")):
        with pytest.raises(BadFileError, match=problem):
            KeptModels(tmp_path / name, 60)


def test_while_the_folder_cannot_be_read_nothing_is_removed_and_no_error_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptModels(tmp_path, 60)
    kept.keep(b"a model")

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        for name in ("scandir", "listdir"):
            patch.setattr(os, name, fail)
        kept.remove_expired(())
        assert kept.digests() == []
    assert kept.digests() == [digest(b"a model")]
