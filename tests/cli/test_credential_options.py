"""Options and environment variables for TLS and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from earmark_server.credentials.tokens import add_token
from support.certificates import Authority
from support.earmark_command import earmark, running
from support.tls_server import serve_with_tls

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def closed(authority: Authority, tmp_path: Path, tiny_model_path: Path) -> Iterator[tuple[str, Path]]:
    """Run a server that requires a token over TLS; yield its address and a file with a token."""
    token_file = tmp_path / "alice.token"
    token_file.write_text(add_token("alice", str(tmp_path / "tokens")) + "\n")
    with serve_with_tls(tiny_model_path, authority, token_file=str(tmp_path / "tokens")) as address:
        yield address, token_file


def test_credentials_from_options_and_from_the_environment(
    closed: tuple[str, Path], authority: Authority
) -> None:
    address, token_file = closed
    there = ("--server", address)
    done = earmark("models", *there, "--ca", authority.path, "--token-file", token_file)
    assert (done.returncode, done.stderr) == (0, "")
    token = token_file.read_text().strip()
    variables = {"EARMARK_CA": str(authority.path), "EARMARK_TOKEN": token}
    assert earmark("health", EARMARK_SERVER=address, **variables).returncode == 0
    # As a secret of Kubernetes that was made of the file: with its line break.
    done = earmark("models", *there, EARMARK_CA=str(authority.path), EARMARK_TOKEN=f"{token}\n")
    assert (done.returncode, done.stderr) == (0, "")
    done = earmark("models", *there, "--token-file", token_file)
    assert done.returncode == 1
    assert "is not sent in plain text" not in done.stderr  # It is this machine.
    assert "--tls" in done.stderr
    done = earmark("models", *there, "--tls", "--token-file", token_file)
    assert "--ca FILE" in done.stderr
    done = earmark("models", *there, "--ca", authority.path)
    assert "This server requires a token" in done.stderr
    done = earmark("models", *there, EARMARK_TLS="perhaps")
    assert "EARMARK_TLS must be 1 or 0" in done.stderr
    done = earmark("models", *there, "--token-file", token_file.with_name("nowhere"))
    assert "nowhere cannot be read: No such file" in done.stderr
    done = earmark("models", "--server", "kws.example.org", EARMARK_TOKEN=token)
    assert "a token is not sent in plain text" in done.stderr
    assert token not in done.stderr
    for flag in ("--tls", "--ca=a", "--certificate=c", "--key=k", "--token-file=t"):
        done = earmark("models", flag)
        assert done.returncode == 2
        assert f"{flag.split('=')[0]} requires --server HOST:PORT" in done.stderr


def test_a_client_certificate_from_options_and_from_the_environment(
    authority: Authority, tiny_model_path: Path
) -> None:
    robot = authority.sign("robot", names=())
    own = ("--certificate", robot.certificate, "--key", robot.key)
    with serve_with_tls(tiny_model_path, authority, tls_client_ca=str(authority.path)) as address:
        options = ("--server", address, "--ca", authority.path)
        assert earmark("models", *options, *own).returncode == 0
        variables = {"EARMARK_CERTIFICATE": str(robot.certificate), "EARMARK_KEY": str(robot.key)}
        assert earmark("models", *options, **variables).returncode == 0
        assert "or a client certificate that it trusts" in earmark("models", *options).stderr
        assert "must be given together" in earmark("models", *options, *own[:2]).stderr


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")
def test_a_token_is_not_in_the_process_list(closed: tuple[str, Path], authority: Authority) -> None:
    address, token_file = closed
    options = ("--server", address, "--ca", authority.path, "--token-file", token_file)
    with running("health", "--watch", *options) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert token_file.read_bytes().strip() not in shown
