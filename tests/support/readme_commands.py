"""The commands in the documents, the test that runs each, and a checkout in which to run them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import soundfile

from support.deadlines import DEADLINE_S
from support.environment import clean_environment
from support.paths import DEMO, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The pages of which every command and every example is run.
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/README.md",
    "docs/architecture.md",
    "docs/clients.md",
    "docs/getting-started.md",
    "docs/glossary.md",
    "docs/guarantees.md",
)
TEXTS = {page: (REPOSITORY / page).read_text() for page in PAGES}
PROGRAMS = (
    "buf",
    "curl",
    "docker",
    "earmark",
    "earmark-server",
    "earmark-train",
    "git",
    "make",
    "pip",
    "python",
)


class Block(NamedTuple):
    """A fenced block: its page, its language (empty: none), and its lines."""

    page: str
    language: str
    text: str


BLOCKS = [
    Block(page, language, block)
    for page, text in TEXTS.items()
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]

# Each command, by how it begins, and the test that runs it; the first match counts.
README, TRAINING = "test_readme.py", "test_readme_training.py"
RUN_BY = {
    "cd ": f"{README}::test_a_clone_has_the_makefile",
    "pip ": f"{README}::test_the_packages_of_the_extras_are_installed_here",
    r"\. ": f"{README}::test_a_command_succeeds",
    "make fuzz": "../fuzz/test_fuzz.py",
    "make help": f"{README}::test_a_command_succeeds",
    "make (demo|serve)": f"{README}::test_a_command_runs_until_it_is_interrupted",
    "make (test|test-all|lint)$": f"{README}::test_ci_runs_the_checks_shown",
    "make ": f"{README}::test_a_target_of_make_exists",
    "earmark .*--tls|umask|openssl|earmark-server --(new-token|host)": f"{README}::test_tls_and_tokens",
    "buf curl .*--cacert": f"{README}::test_tls_and_tokens",
    "earmark record-keyword": "test_microphone.py::test_takes_of_a_keyword_are_recorded",
    "earmark-train negatives": "../training/data/test_public_sets.py",
    "earmark listen .*--model": f"{TRAINING}::test_your_own_keyword",
    "earmark listen": f"{README}::test_keywords_spoken_into_a_microphone_are_detected",
    "earmark (web|health --watch)": f"{README}::test_a_command_runs_until_it_is_interrupted",
    "earmark(-server)? --help": f"{README}::test_a_command_succeeds",
    "earmark (spot|classify|plot|tune|completion)": f"{README}::test_a_command_succeeds",
    "earmark-server --workers": f"{README}::test_a_command_runs_until_it_is_interrupted",
    "curl ": f"{README}::test_curl_spots_a_recording",
    "buf curl": f"{README}::test_buf_curl_gets_a_response",
    "docker ": "test_readme_docker.py::test_compose_serves_its_client",
    r"earmark-train \w+$": f"{TRAINING}::test_a_command_of_earmark_train_exists",
    "earmark-train keyword|earmark-server --model computer": f"{TRAINING}::test_your_own_keyword",
    "earmark-train|earmark-server --model mine": f"{TRAINING}::test_a_model_from_clips",
    r"python scripts/repair_torchaudio\.py": f"{TRAINING}::test_the_training_extra_works",
    r"python -m benchmarks\.comparison": "../benchmarks/test_comparison_benchmark.py",
}  # fmt: skip
# Training and building images take minutes.
unless_slow = pytest.mark.skipif("README_ALL" not in os.environ, reason="takes minutes: make test-readme")
# The examples in other languages, and the test that runs each.
EXAMPLES_RUN_BY = {
    ("README.md", "python"): ["../client/test_documented_examples.py::test_the_example_in_the_readme_works"],
    ("docs/clients.md", "python"): [
        "../client/test_documented_examples.py::test_the_asyncio_example_works",
        f"{README}::test_the_example_of_the_library_works",
    ],
    ("docs/clients.md", "js"): ["test_node_client.py::test_the_example_works"],
    ("docs/clients.md", "yaml"): ["test_buf_curl.py::test_managed_mode_generates_code_for_go"],
}
# Nothing in a drawing can be run.
DRAWINGS = ("mermaid", "text")


def is_output(block: Block) -> bool:
    """Return whether the block shows the output of a command; a test of its own compares it."""
    return block.text.startswith("demo.flac")


def examples(page: str, language: str) -> list[str]:
    """Return the page's examples in a language, in their order."""
    return [block.text for block in BLOCKS if (block.page, block.language) == (page, language)]


def commands() -> list[str]:
    """Return every command in a shell block, in a comment there, and in a line of text."""
    found = []
    for block in BLOCKS:
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                command, _, comment = line.partition(" #")
                found += re.split(" && ", re.sub(" +", " ", command.strip()))
                found += re.findall(r"\b(pip install [^)]+)", comment)
    for text in TEXTS.values():
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        codes = (re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", prose))
        found += [code for code in codes if " " in code and code.split()[0] in PROGRAMS]
    return list(dict.fromkeys(filter(None, found)))


def runner(command: str) -> str | None:
    """Return the name of the test that runs the command."""
    return next((test for begin, test in RUN_BY.items() if re.match(begin, command)), None)


def shown(test: str) -> list[str]:
    """Return the commands that the test of that name runs."""
    return [command for command in commands() if (runner(command) or "").endswith(f"::{test}")]


@dataclass
class Checkout:
    """A folder in which the commands can be typed: the project, with this environment as its .venv."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Checkout:
        """Create the folder with the recordings that the commands read."""
        if sys.prefix == sys.base_prefix:
            pytest.skip("not in a virtual environment, as `make` would have made it")
        for name in ("Makefile", "constraints.txt", "protos", "pyproject.toml", "scripts", ".venv"):
            (folder / name).symlink_to(sys.prefix if name == ".venv" else REPOSITORY / name)
        samples, rate_hz = soundfile.read(DEMO, dtype="float32")
        for name in ("interview.wav", "talk.mp3", "recording.wav"):
            soundfile.write(folder / name, samples, rate_hz)
        stop = samples[int(5.5 * rate_hz) : int(6.4 * rate_hz)]
        (folder / "recordings/stop").mkdir(parents=True)
        for name in ("clip.wav", "recordings/stop/1.wav"):
            soundfile.write(folder / name, stop, rate_hz)
        soundfile.write(folder / "recordings/quiet.wav", np.zeros(rate_hz, np.float32), rate_hz)
        return cls(folder)

    def environment(self, **variables: str) -> dict[str, str]:
        """Return an environment as after `. .venv/bin/activate`, with these variables."""
        path = f"{self.folder / '.venv/bin'}:{os.environ['PATH']}"
        environment = clean_environment(PATH=path, COLUMNS="100", **variables)
        return {name: value for name, value in environment.items() if not name.startswith("MAKE")}

    def run(self, command: str, *, timeout_s: float = DEADLINE_S, **variables: str) -> str:
        """Run a command and return its output. It must exit with 0."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def running(self, command: str, **variables: str) -> Iterator[Running]:
        """Run a command that does not end by itself, and interrupt it with Ctrl-C at the end."""
        with subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            deadline = threading.Timer(2 * DEADLINE_S, os.killpg, (process.pid, signal.SIGKILL))
            deadline.start()
            try:
                yield Running(process)
                os.killpg(process.pid, signal.SIGINT)
                process.stdout.read()
                assert process.wait() in {0, 130, -signal.SIGINT}  # make ends by the signal
            finally:
                deadline.cancel()
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


class Running:
    """A command that is running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.output = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches the pattern, and return the match."""
        while not (found := re.search(pattern, self.output)):
            line = self._process.stdout.readline()
            assert line, f"the command ended without printing {pattern}:\n{self.output}"
            self.output += line
        return found
