"""The server's configuration file."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from earmark_server.command_line import misspelt_variables, read_settings
from earmark_server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def test_flags_win_over_the_environment_and_both_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 1000\nmax-streams = 10\nmax-load = 1\nlog-format = "json"\nreflection = false\n')
    environment = {"EARMARK_MAX_STREAMS": "20", "EARMARK_LOG_FORMAT": "text"}
    settings = read_settings(["--config", str(file), "--max-streams=30"], environment)
    assert settings == Settings(port=1000, max_streams=30, max_load=1.0, log_format="text", reflection=False)
    assert read_settings([], {"EARMARK_CONFIG": str(file)}).port == 1000


def test_several_models_are_a_list(tmp_path: Path, tiny_model_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"model = ['{tiny_model_path}', '{tiny_model_path}']\n")
    assert read_settings(["--config", str(file)], {}).model == (str(tiny_model_path),) * 2
    file.write_text(f"model = '{tiny_model_path}'\n")
    assert read_settings(["--config", str(file)], {}).model == (str(tiny_model_path),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-streem = 5", "there is no setting 'max-streem'. Did you mean max-streams?"),
        ("max_streams = 5", "there is no setting 'max_streams'. Did you mean max-streams?"),
        ("xyzzy = 5", "there is no setting 'xyzzy'"),
        ("[server]\nport = 5", "there is no setting 'server'"),
        ("port = '5'", "port must be a whole number, but is '5'"),
        ("port = true", "port must be a whole number, but is True"),
        ("port = 1.5", "port must be a whole number, but is 1.5"),
        ("insecure = 1", "insecure must be true or false, but is 1"),
        ("max-load = nan", "--max-load must be 0.05 to 1"),
        (f"max-load = 1{'0' * 400}", "max-load must be a number"),
        (f"port = 1{'0' * 400}", "--port must be 0 to 65535"),
        ("max-load = true", "max-load must be a number, but is True"),
        ("host = 5", "host must be a text in quotation marks, but is 5"),
        (r'host = "a\u0000b"', r"--host must not contain a null character, but is 'a\x00b'"),
        (r'token-file = "a\u0000b"', r"--token-file must not contain a null character, but is 'a\x00b'"),
        (r'model = ["a", "a\u0000b"]', r"--model must not contain a null character, but is ('a', 'a\x00b')"),
        ("model = [5]", "model must be a list of texts in quotation marks, but is [5]"),
        ("port = 99999", "port must be 0 to 65535"),
        ("port 5", "is not valid TOML"),
        ("host = '\udcff'", "is not valid TOML"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_an_invalid_file_is_rejected_in_one_line_that_names_it(
    tmp_path: Path, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.toml"
    if text is not None:
        file.write_text(text, errors="surrogateescape")
    with pytest.raises(SystemExit) as caught:
        read_settings(["--config", str(file)], {})
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.startswith("earmark-server: ")
    assert str(file) in line


@pytest.mark.parametrize("source", ["environment", "file", "option"])
def test_a_value_out_of_range_is_reported_with_where_it_is_set(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.toml"
    file.write_text("max-load = 3\n")
    environment = {} if source == "file" else {"EARMARK_MAX_LOAD": "2"}
    option = ["--max-load=4"] if source == "option" else []
    with pytest.raises(SystemExit):
        read_settings(["--config", str(file), *option], environment)
    value, origin = {
        "environment": ("2.0", " --max-load is set in EARMARK_MAX_LOAD."),
        "file": ("3.0", f" --max-load is set in {file}."),
        "option": ("4.0", ""),
    }[source]
    message = f"earmark-server: --max-load must be 0.05 to 1, but is {value}.{origin} See"
    assert capsys.readouterr().err.startswith(message)


def test_misspelt_variables_are_found_and_those_of_clients_and_kubernetes_are_not() -> None:
    correct = {each.name for each in fields(Settings)} | {"config"}
    others = ("SERVER", "TOKEN", "TLS", "CA", "CERTIFICATE", "KEY", "SERVICE_HOST", "PORT_50051_TCP")
    environment = dict.fromkeys([f"EARMARK_{name.upper()}" for name in (*correct, *others)], "1")
    assert misspelt_variables(environment) == {}
    misspelt = {"EARMARK_TOKENS_FILE": "EARMARK_TOKEN_FILE", "EARMARK_LOGLEVEL": "EARMARK_LOG_LEVEL"}
    assert misspelt_variables({**environment, **misspelt, "MAX_STREAM": "5"}) == misspelt


def test_a_mistyped_option_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings(["--max-streem", "5"], {})
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("earmark-server: unknown option --max-streem. Did you mean --max-streams?")
