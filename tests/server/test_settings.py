from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from earmark_server import serve_in_thread
from earmark_server.command_line import read_settings
from earmark_server.setting_declaration import SettingsError, declaration_of
from earmark_server.settings import Settings, is_loopback

if TYPE_CHECKING:
    from pathlib import Path


def error_of(arguments: list[str], environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error message for invalid settings; the exit code must be 2."""
    with pytest.raises(SystemExit) as caught:
        read_settings(arguments, environment)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_defaults() -> None:
    settings = read_settings([], {})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.reflection) == ("127.0.0.1", 50051, True)
    assert settings.address(50051) == "127.0.0.1:50051"


def test_help_has_every_setting_once_with_its_default_unit_and_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings(["--help"], {})
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for field in dataclasses.fields(Settings):
        flag = "--" + field.name.replace("_", "-")
        assert len(re.findall(rf"^  {flag}[ ,]", out, re.MULTILINE)) == 1
        assert " ".join(out.split()).count(f"environment EARMARK_{field.name.upper()})") == 1
    options = " ".join(out.split())
    assert "bytes; 1024 to 1073741824; default 16777216" in options
    assert "seconds; 0 to 3600; default 30" in options
    for unit, ending in (("seconds", "_s"), ("bytes", "_bytes")):
        for field in dataclasses.fields(Settings):
            assert (declaration_of(field).unit == unit) == field.name.endswith(ending)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--port", "0"], {}, {"port": 0}),
        (["--port=6000"], {"EARMARK_PORT": "7000"}, {"port": 6000}),
        ([], {"EARMARK_PORT": " 7000 "}, {"port": 7000}),
        ([], {"EARMARK_PORT": ""}, {}),
        (["--no-reflection"], {"EARMARK_REFLECTION": "yes"}, {"reflection": False}),
        ([], {"EARMARK_REFLECTION": "Off"}, {"reflection": False}),
        ([], {"EARMARK_IDLE_TIMEOUT_S": "2.5"}, {"idle_timeout_s": 2.5}),
        (["--host", "0.0.0.0", "--insecure"], {}, {"host": "0.0.0.0", "insecure": True}),
        ([], {"EARMARK_HOST": "::1", "EARMARK_LOG_FORMAT": "json"}, {"host": "::1", "log_format": "json"}),
    ],
)
def test_the_command_line_precedes_the_environment_and_the_defaults(
    arguments: list[str], environment: dict[str, str], expected: dict[str, Any]
) -> None:
    assert read_settings(arguments, environment) == Settings(**expected)


def test_several_models(tmp_path: Path) -> None:
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    one.touch()
    two.touch()
    both = (str(one), str(two))
    assert read_settings(["--model", both[0], "--model", both[1]], {}).model == both
    assert read_settings([], {"EARMARK_MODEL": f"{one}:{two}"}).model == both


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--port", "many"], {}, "--port must be a whole number, but is 'many'"),
        (["--port", "65536"], {}, "port must be 0 to 65535, but is 65536"),
        (["--port", "-1"], {}, "port must be 0 to 65535, but is -1"),
        (["--port", "1.5"], {}, "whole number"),
        ([], {"EARMARK_PORT": "x"}, "EARMARK_PORT must be a whole number"),
        ([], {"EARMARK_REFLECTION": "maybe"}, "EARMARK_REFLECTION must be one of 1, true, yes, on, 0"),
        (["--idle-timeout-s", "nan"], {}, "0.05 to 86400 seconds"),
        (["--idle-timeout-s", "inf"], {}, "0.05 to 86400 seconds"),
        (["--idle-timeout-s", "-3"], {}, "0.05 to 86400 seconds"),
        (["--log-format", "xml"], {}, "--log-format must be text or json, but is 'xml'"),
        (["--log-level", "loud"], {}, "debug, info, warning or error"),
        (["--max-streams", "0"], {}, "1 to 100000"),
        (["--workers", "0"], {}, "workers must be 1 to 256, but is 0"),
        (
            ["--port", "7", "--metrics-port", "7"],
            {},
            "--port and --metrics-port must not overlap, but are 7 and 7",
        ),
        (["--port", "7", "--workers", "2", "--health-port", "6"], {}, "but are 7 and 6 to 7"),
        (["--workers", "2", "--health-port", "7", "--metrics-port", "8"], {}, "but are 7 to 8 and 8 to 9"),
        (["--workers", "x"], {}, "--workers must be a whole number, but is 'x'"),
        ([], {"EARMARK_WORKERS": "257"}, "1 to 256"),
        (["--max-message-bytes", "12"], {}, "1024 to 1073741824 bytes"),
        (["--host", ""], {}, "host must be an address"),
        (["--host", "unix:"], {}, "host must be an address or a name, or unix:PATH, but is 'unix:'"),
        (["--host", "a..b", "--insecure"], {}, "--host must be an address or a name, but is 'a..b'"),
        (["--host", "0.0.0.0"], {}, "add --insecure"),
        (["--host", "example.org"], {}, "add --insecure"),
        ([], {"EARMARK_HOST": "192.168.1.5"}, "add --insecure"),
        (["--model", "/no/such/model.onnx"], {}, "there is no file '/no/such/model.onnx'"),
        (["--host", "127.0.0.1:50051"], {}, "--host must be an address or a name, but is '127.0.0.1:50051'"),
        (["--host", "[::1]"], {}, "It has no brackets, and its port is an option of its own: --port"),
        (["--host", "ipv4:127.0.0.1"], {}, "--host must be an address or a name, but is 'ipv4:127.0.0.1'"),
        (["--metrics-host", "a:1", "--metrics-port", "1"], {}, "an option of its own: --metrics-port"),
        (["--metrics-host", "unix:m"], {}, "--metrics-host must be an address or a name, but is 'unix:m'"),
        (["--metrics-host", "::1"], {}, "--metrics-host needs --metrics-port"),
        (
            [],
            {"EARMARK_RATE_BURST_S": "5"},
            "needs --max-rate: without it, audio is read at any speed. --rate-",
        ),
        (["--state-dir=s", "--keep-replaced-s=0"], {}, "--state-dir needs a --keep-replaced-s above 0"),
        (["--state-dir=s", f"--model-sha256={'0' * 64}"], {}, "--state-dir and --model-sha256 contradict"),
        (["--keep-replaced-s=1", f"--model-sha256={'0' * 64}"], {}, "a pinned model is never replaced"),
        (["--colour"], {}, "unknown option --colour"),
        (["--max-str", "3"], {}, "unknown option --max-str"),
    ],
)
def test_an_invalid_value_is_rejected_with_the_allowed_values(
    arguments: list[str], environment: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(arguments, environment, capsys)


def test_values_of_the_wrong_type_are_rejected() -> None:
    for wrong in (
        {"port": "50051"},
        {"port": True},
        {"reflection": 1},
        {"model": "a.onnx"},
        {"max_streams": 2.0},
    ):
        with pytest.raises(SettingsError, match="must be of type"):
            Settings(**wrong)
    assert Settings(idle_timeout_s=3).idle_timeout_s == 3


def test_several_workers_need_linux(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert read_settings(["--workers", "3"], {}).workers == 3
    monkeypatch.setattr("sys.platform", "darwin")
    assert "workers must be 1 here, but is 3" in error_of(["--workers", "3"], {}, capsys)
    assert Settings(workers=1).workers == 1


def test_a_limit_on_memory_needs_linux(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert "--max-memory-bytes must be 0 here, but is 5" in error_of(["--max-memory-bytes=5"], {}, capsys)
    assert read_settings(["--max-memory-bytes=0"], {}).max_memory_bytes == 0


def test_an_embedded_server_is_one_process() -> None:
    with pytest.raises(SettingsError, match="workers must be 1 for a Server"), serve_in_thread(workers=2):
        pass


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example.org", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback_addresses_are_recognized(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_ports_on_other_addresses_and_any_ports_do_not_overlap() -> None:
    Settings(port=7, metrics_port=7, metrics_host="127.0.0.2")
    Settings(port=0, health_port=0, metrics_port=0)
    Settings(port=7, health_port=8, metrics_port=9)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert Settings(host="::1", port=1).address(1) == "[::1]:1"


def test_a_model_that_may_not_be_read_is_no_missing_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SettingsError, match=r"model\.onnx' cannot be read: permission denied\."):
        Settings(model=(str(path),))

    def stat(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(SettingsError, match="permission denied in its folder"):
        Settings(model=(str(path),))
