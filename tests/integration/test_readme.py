"""Every command in the documents is run as written there; readme_commands.py says by which test."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import shutil
import tomllib
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import soundfile
from packaging.requirements import Requirement
from support.paths import DEMO, REPOSITORY
from support.ports import free_port
from support.readme_commands import (
    BLOCKS,
    DRAWINGS,
    EXAMPLES_RUN_BY,
    RUN_BY,
    Checkout,
    commands,
    examples,
    is_output,
    runner,
    shown,
)
from support.sample_audio import running_server, speech

if TYPE_CHECKING:
    from support.virtual_microphone import Microphone

HERE = REPOSITORY / "tests/integration"
# The output that shows that a command did its work; "stop" is spoken in every recording.
PRINTS = {
    r"\. ": r"^$",
    "make help": "demo .*keywords",
    "make demo": r" no +\d\.\d\d",
    "make serve|earmark-server --workers": "event=serving",
    ".*--help": "^usage: earmark",
    "earmark completion": "_shtab_earmark",
    "earmark plot": "13 detections",
    "earmark web": r"the page is at (http://\S+)/",
    "earmark health": "SERVING",
    "earmark": "stop",
}


def prints(command: str) -> str:
    return next(pattern for begin, pattern in PRINTS.items() if re.match(begin, command))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout.make(tmp_path_factory.mktemp("checkout"))


@pytest.mark.parametrize("command", commands())
def test_every_command_shown_has_a_test(command: str) -> None:
    assert runner(command), f"no test runs `{command}`: write one, and add it to RUN_BY"


def test_every_test_in_the_table_exists_and_has_commands() -> None:
    for begin, test in RUN_BY.items():
        assert any(re.match(begin, command) and runner(command) == test for command in commands()), begin
    named = {*RUN_BY.values(), *(test for tests in EXAMPLES_RUN_BY.values() for test in tests)}
    for path, _, name in (test.partition("::") for test in named):
        tree = ast.parse((HERE / path).read_text())
        assert not name or name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}, name


def test_every_example_in_another_language_has_a_test() -> None:
    found = Counter((block.page, block.language) for block in BLOCKS)
    languages = {language for _, language in found}
    assert "" not in languages, "name the language of each block: sh for commands"
    examples_found = {one: count for one, count in found.items() if one[1] not in ("sh", *DRAWINGS)}
    assert examples_found == {one: len(tests) for one, tests in EXAMPLES_RUN_BY.items()}


def test_the_output_shown_is_that_of_the_demo(checkout: Checkout) -> None:
    (block,) = filter(is_output, BLOCKS)
    head, *found, last = block.text.splitlines()
    output = checkout.run("earmark demo --fast").splitlines()
    end = len(found) + 1  # what to do next follows
    assert (output[0], output[1:end]) == (head, found)
    assert last.partition(", took")[0] == output[end].partition(", took")[0]


def test_a_clone_has_the_makefile(checkout: Checkout) -> None:
    (command,) = shown("test_a_clone_has_the_makefile")
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    checkout.run(f"git clone --quiet {REPOSITORY} earmark")
    assert "demo:" in checkout.run(f"{command} && cat Makefile")


def test_the_example_of_the_library_works(checkout: Checkout) -> None:
    samples, rate_hz = soundfile.read(DEMO, dtype="int16")
    assert rate_hz == 16_000
    (checkout.folder / "speech.raw").write_bytes(samples.tobytes())
    (checkout.folder / "example.py").write_text(examples("docs/clients.md", "python")[1])
    lines = checkout.run("python example.py").splitlines()
    (block,) = filter(is_output, BLOCKS)
    assert [line.split()[0] for line in lines] == [line.split()[5] for line in block.text.splitlines()[1:-1]]


@pytest.mark.parametrize("command", shown("test_the_packages_of_the_extras_are_installed_here"))
def test_the_packages_of_the_extras_are_installed_here(command: str, checkout: Checkout) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = {None: project["dependencies"], **project["optional-dependencies"]}
    wanted = [None, *"".join(re.findall(r"\[(.*)\]", command)).split(",")]
    while wanted:
        extra = wanted.pop()
        for requirement in map(Requirement, extras[extra or None]):
            if requirement.marker and not requirement.marker.evaluate():
                continue
            if requirement.name == "earmark":
                wanted += requirement.extras
                continue
            try:
                installed = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                pytest.skip(f"not installed here: {requirement}")
            assert requirement.specifier.contains(installed, prereleases=True), requirement


def test_ci_runs_the_checks_shown() -> None:
    called = (REPOSITORY / ".ci/run").read_text() + (REPOSITORY / ".github/workflows/ci.yml").read_text()
    for command in shown("test_ci_runs_the_checks_shown"):
        assert re.search(rf"\b{command}(-all)?$", called, re.MULTILINE), command


@pytest.mark.parametrize("command", shown("test_a_target_of_make_exists"))
def test_a_target_of_make_exists(command: str, checkout: Checkout) -> None:
    checkout.run(f"{command} --dry-run")


@pytest.mark.slow
@pytest.mark.parametrize("command", shown("test_a_command_succeeds"))
def test_a_command_succeeds(command: str, checkout: Checkout) -> None:
    assert re.search(prints(command), checkout.run(command), re.MULTILINE)
    if " -o " in command:
        assert (checkout.folder / command.split(" -o ")[1]).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("command", shown("test_a_command_runs_until_it_is_interrupted"))
def test_a_command_runs_until_it_is_interrupted(command: str, checkout: Checkout) -> None:
    if command.startswith("make"):
        # The environment exists, and must not change.
        command += " -o .venv/.server"
    elif command.startswith("earmark web"):
        command += " --port 0"
    with running_server(speech()) as address:
        port = str(free_port())
        with checkout.running(command, EARMARK_PORT=port, EARMARK_SERVER=address) as running:
            running.until(prints(command))


@pytest.mark.slow
def test_curl_spots_a_recording(checkout: Checkout) -> None:
    (command,) = shown("test_curl_spots_a_recording")
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    with checkout.running("earmark web --port 0") as page:
        url = page.until(prints("earmark web"))[1]
        output = checkout.run(command.replace("http://127.0.0.1:8080", f"-s {url}"))
    assert "stop" in {one["keyword"] for one in json.loads(output)["detections"]}


@pytest.mark.slow
@pytest.mark.parametrize("command", shown("test_keywords_spoken_into_a_microphone_are_detected"))
def test_keywords_spoken_into_a_microphone_are_detected(
    command: str, checkout: Checkout, microphone: Microphone
) -> None:
    with checkout.running(command, **microphone.own) as running:
        running.until("Recording from")
        microphone.play(soundfile.read(DEMO, dtype="int16")[0][:32_000])
        running.until(r" no +\d\.\d\d")
    if "--record" in command:
        assert soundfile.info(checkout.folder / "speech.wav").duration > 1
        assert "no" in (checkout.folder / "speech.txt").read_text()


@pytest.mark.slow
def test_tls_and_tokens(checkout: Checkout) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    calling, *creating, serving, spotting = (
        command.replace("kws.example.org", "localhost") for command in shown("test_tls_and_tokens")
    )
    checkout.run("; ".join(creating))
    for private in ("robot.token", "server.key"):
        assert (checkout.folder / private).stat().st_mode & 0o777 == 0o600
    port = free_port()
    with checkout.running(serving, EARMARK_PORT=str(port)) as server:
        server.until("event=serving")
        command = spotting.replace(":50051", f":{port}")
        assert command != spotting
        assert "stop" in checkout.run(command)
        assert "token" in checkout.run(f"! {command.partition(' --token-file')[0]}")
        if shutil.which("buf") is not None:
            command = calling.replace(":50051", f":{port}")
            assert "earmark-en" in checkout.run(command)
            assert "unauthenticated" in checkout.run(f"! {command.replace('Bearer', 'Basic')}")


@pytest.mark.skipif(shutil.which("buf") is None, reason="no buf: pip install buf-bin")
def test_buf_curl_gets_a_response(checkout: Checkout) -> None:
    with running_server(speech()) as address:
        for command in shown("test_buf_curl_gets_a_response"):
            output = checkout.run(command.replace("127.0.0.1:50051", address))
            assert re.search("KeywordSpottingService|SERVING|earmark-en", output)
