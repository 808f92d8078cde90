"""Downloads, from a server of this machine."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from earmark_training.__main__ import main
from earmark_training.commands import negatives
from earmark_training.data.public_sets import LIBRISPEECH_DEV_CLEAN, SPEECH_COMMANDS, PublicSet, download
from earmark_training.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def served(tmp_path: Path) -> Iterator[PublicSet]:
    """Yield a data set on a local server, with the layout of LibriSpeech."""
    (tmp_path / "www").mkdir()
    archive = tmp_path / "www" / "dev.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("LibriSpeech/dev-clean/84/1/84-1.trans.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    handler = partial(_Quiet, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/dev.tar.gz"
        yield replace(LIBRISPEECH_DEV_CLEAN, url=url, sha256=digest, size_mb=1, unpacked_mb=1)
        server.shutdown()
        thread.join()


def test_a_set_is_downloaded_once_and_leaves_only_its_recordings(served: PublicSet, tmp_path: Path):
    folder = download(served, tmp_path / "data")
    assert folder == tmp_path / "data" / "LibriSpeech" / "dev-clean"
    assert (folder / "84" / "1" / "84-1.trans.txt").read_text() == "hello"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["LibriSpeech"]
    assert download(replace(served, url="http://127.0.0.1:9/none"), tmp_path / "data") == folder


def test_other_sets_in_the_same_folder_are_kept(served: PublicSet, tmp_path: Path):
    other = tmp_path / "data" / "LibriSpeech" / "train-clean-5"
    other.mkdir(parents=True)
    assert (download(served, tmp_path / "data") / "84" / "1" / "84-1.trans.txt").is_file()
    assert sorted(path.name for path in other.parent.iterdir()) == ["dev-clean", "train-clean-5"]


def test_a_set_without_a_folder_of_its_own_gets_one(served: PublicSet, tmp_path: Path):
    one = replace(served, folder=SPEECH_COMMANDS.folder, in_archive=SPEECH_COMMANDS.in_archive)
    assert (download(one, tmp_path / "data") / "LibriSpeech").is_dir()


def test_another_archive_is_rejected(served: PublicSet, tmp_path: Path):
    with pytest.raises(CorpusError, match="its SHA-256 differs"):
        download(replace(served, sha256="0" * 64), tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_without_a_connection_the_message_says_what_to_do(
    served: PublicSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        negatives, "LIBRISPEECH_DEV_CLEAN", replace(served, url="http://127.0.0.1:9/a.tar.gz")
    )
    assert main(["negatives", str(tmp_path / "data")]) == 1
    error = capsys.readouterr().err
    assert "cannot be downloaded from http://127.0.0.1:9/a.tar.gz" in error
    assert f"unpack it as {tmp_path / 'data' / 'LibriSpeech' / 'dev-clean'}" in error


@pytest.mark.parametrize("lines", [["Content-Length: 100"], ["Transfer-Encoding: chunked"]])
def test_a_download_that_breaks_off_is_named(lines: list[str], served: PublicSet, tmp_path: Path):
    class Handler(_Quiet):
        def do_GET(self) -> None:
            self.wfile.write("\r\n".join(["HTTP/1.1 200 OK", *lines, "", "5", "hello"]).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(CorpusError, match="cannot be downloaded from http"):
                download(replace(served, url=f"http://127.0.0.1:{server.server_port}/x"), tmp_path / "data")
        finally:
            server.shutdown()
            thread.join()
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_disk_that_becomes_full_during_the_download_is_named(
    served: PublicSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "dev.tar.gz.part").symlink_to("/dev/full")
    monkeypatch.setattr(negatives, "LIBRISPEECH_DEV_CLEAN", served)
    assert main(["negatives", str(folder)]) == 1
    assert (
        f"{folder}: {served.name} cannot be written there: No space left on device. It needs 2 MB: make "
        "space, or give another folder" in capsys.readouterr().err
    )
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EDQUOT, "Disk quota exceeded. It needs 2 MB"),
        (errno.EROFS, "Read-only file system. Give a folder that can be written"),
        (errno.EACCES, "Permission denied. Give a folder that can be written"),
    ],
)
@pytest.mark.parametrize(
    "name", ["pathlib.Path.mkdir", "pathlib.Path.open", "pathlib.Path.rename", "tarfile.open"]
)
def test_an_error_of_the_disk_is_none_of_the_connection(
    name: str, number: int, remedy: str, served: PublicSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(name, fail)
    with pytest.raises(CorpusError, match=f"cannot be written there: {remedy}"):
        download(served, tmp_path / "data")


def test_a_full_disk_is_noticed_first(served: PublicSet, tmp_path: Path):
    with pytest.raises(CorpusError, match=r"needs 1000000001 MB, \d+ MB are free"):
        download(replace(served, unpacked_mb=1_000_000_000), tmp_path / "data")
