"""What the documents quote, name and show exists: messages, commands, options, reasons, paths and links."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
from earmark_audio import FORMATS_HELP, READABLE, Decoder
from earmark_cli.command_line import build_parser
from earmark_server.command_line import read_settings
from earmark_server.settings import Settings
from earmark_server.status import REASONS, CallError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDERS = ("docs", "training", "benchmarks", "deploy", "examples", "server", "models")
PATHS = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in PATHS}
# Every option and variable in these pages is one of the `earmark` command or of `earmark-server`.
OPTION_PAGES = (
    "README.md",
    "SECURITY.md",
    "docs/limits.md",
    "docs/quick-reference.md",
    "docs/troubleshooting.md",
    "docs/web.md",
)
# Options of other programs in those pages.
OTHER_OPTIONS = {"--rm", "--profile", "--recordings", "--negatives"}
# In these pages every path is named from the project's folder, or from the one that is the page's subject.
PATH_PAGES = {
    "CONTRIBUTING.md": ROOT,
    "docs/architecture.md": ROOT,
    "docs/lab-notes/cost.md": ROOT,
    "benchmarks/README.md": ROOT / "benchmarks",
    "training/README.md": ROOT / "training/earmark_training",
}
# Folders of recordings that people bring.
ELSEWHERE = ("speech_commands/",)
SUFFIXES = ("py", "md", "proto", "sh", "yaml", "yml", "toml", "json", "onnx", "txt")


@cache
def messages() -> tuple[str, ...]:
    """Return every text in the programs, with … for what is inserted."""
    found = []
    for folder in ("server", "client"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def quoted() -> list[str]:
    """Return the messages in the first columns of the page: code of more than one word, and no command."""
    page = PAGES["docs/troubleshooting.md"]
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    found = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    return [code for code in found if " " in code]


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_the_programs(message: str) -> None:
    pattern = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
    assert any(pattern.search(text) for text in messages()), message


def test_there_are_quoted_messages() -> None:
    assert len(quoted()) > 20


def commands() -> list[str]:
    """Return the commands of Earmark's programs in the shell blocks of all pages."""
    blocks = re.findall(r"^```sh\n(.*?)```", "\n".join(PAGES.values()), re.MULTILINE | re.DOTALL)
    lines = [line.split(" | ")[-1] for block in blocks for line in block.splitlines()]
    lines = [line.split(" > ")[0] for line in lines if re.match(r"earmark(-server|-train)? ", line)]
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("command", commands())
def test_a_command_shown_is_valid(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(command, comments=True)
    if program == "earmark":
        assert callable(build_parser().parse_args(arguments).run)
    elif program == "earmark-train":
        training = pytest.importorskip("earmark_training.command_line", exc_type=ImportError)
        training.build_parser().parse_args(arguments)
    elif arguments[0] == "--new-token":
        with pytest.raises(SystemExit, match=r"^0$"):
            read_settings(arguments, {})
        assert capsys.readouterr().out
        assert (tmp_path / arguments[2]).exists()
    else:
        for model in (one for one in arguments if one.endswith(".onnx")):
            Path(model).touch()
        assert read_settings(arguments, {}) != Settings()


def test_there_are_commands() -> None:
    assert len(commands()) > 20


def test_every_option_and_variable_named_exists(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for arguments in (
        [],
        ["spot"],
        ["listen"],
        ["health"],
        ["classify"],
        ["check"],
        ["web"],
        ["wyoming"],
        ["review"],
        ["record-keyword"],
    ):
        with pytest.raises(SystemExit):
            build_parser().parse_args([*arguments, "--help"])
        texts.append(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    texts.append(capsys.readouterr().out)
    known = set(re.findall(r"--[a-z][a-z0-9-]+|EARMARK_[A-Z_]+", " ".join(texts))) | OTHER_OPTIONS
    known |= {"EARMARK_TLS", "EARMARK_USER"}
    for page in OPTION_PAGES:
        named = set(re.findall(r"(?<![\w|-])--[a-z][a-z0-9-]+|EARMARK_[A-Z_]+\b", PAGES[page]))
        assert named <= known, (page, named - known)


def test_the_table_of_formats_is_that_of_the_reader() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ((?:`\.\w+` ?)+)\| ([^|]+) \| ([^|]+) \|$", PAGES["docs/recordings.md"], re.MULTILINE
    )
    cells = {
        Decoder.SNDFILE: ("always", "always"),
        Decoder.FFMPEG: ("with ffmpeg or `formats`", "with `formats`"),
    }
    assert [(name, tuple(re.findall(r"\.\w+", suffixes)), *where) for name, suffixes, *where in rows] == [
        (one.name, one.suffixes, *cells[one.decoder]) for one in READABLE
    ]


@pytest.mark.parametrize(
    "path",
    [
        "protos/earmark/v1/keyword_spotting.proto",
        "protos/earmark/v1/keyword_spotting_service.proto",
        "client/earmark_web/openapi.json",
        "docs/getting-started.md",
    ],
)
def test_the_formats_that_are_always_read_are_named(path: str) -> None:
    text = re.sub(r"[\s/]+", " ", (ROOT / path).read_text())
    names = [one.name.split()[0] for one in READABLE if one.decoder is Decoder.SNDFILE]
    assert re.search(", ".join(names[:-2]) + r",? Ogg( \(Vorbis, Opus\))? (or|and) MP3", text)


@pytest.mark.parametrize("command", ["spot", "classify", "plot", "tune", "check"])
def test_the_help_names_the_formats(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"])
    assert FORMATS_HELP in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_every_benchmark_named_exists() -> None:
    for page, text in PAGES.items():
        for name in re.findall(r"python -m benchmarks\.(\w+)", text):
            assert (ROOT / f"benchmarks/{name}.py").is_file(), (page, name)
    row = r"^\| `python -m benchmarks\.(\w+)` \|"
    listed = set(re.findall(row, PAGES["benchmarks/README.md"], re.MULTILINE))
    assert listed == {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__"}


def test_every_reason_is_explained_with_its_status() -> None:
    page = PAGES["docs/quick-reference.md"]
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| ([A-Z_]+) \|", page, re.MULTILINE)
    explained = {reason: status for reasons, status in rows for reason in re.findall(r"[A-Z_]+", reasons)}
    assert explained == {reason: CallError(reason, "").code.name for reason in REASONS}


@pytest.mark.parametrize("page", PATH_PAGES)
def test_every_path_named_exists(page: str) -> None:
    path = rf"`((?:[\w-]+/)+(?:[\w.-]+\.(?:{'|'.join(SUFFIXES)}))?|[\w-]+\.(?:py|sh))`"
    named = re.findall(path, PAGES[page])
    assert named
    for one in named:
        assert one in ELSEWHERE or (PATH_PAGES[page] / one).exists() or (ROOT / one).exists(), one


def test_the_tree_in_the_readme_has_the_folders_of_the_project() -> None:
    rows = re.findall(r"^((?:[\w-]+/)+)(?:, ([\w-]+/))?  +(.+)$", PAGES["README.md"], re.MULTILINE)
    assert len(rows) > 10
    for folder, another, about in rows:
        assert (ROOT / folder).is_dir(), folder
        assert (ROOT / another).is_dir(), another
        if inner := set(re.findall(r"\b(\w+)/", about)):
            assert inner == {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    packages = {path.parent for path in ROOT.glob("*/*/__init__.py")}
    assert packages - {ROOT / "tests/support", ROOT / "benchmarks/loadgen"} <= {ROOT / row[0] for row in rows}


@pytest.mark.parametrize("package", ["server/earmark_server", "training/earmark_training"])
def test_the_table_of_folders_is_complete(package: str) -> None:
    rows = set(re.findall(rf"^\| `{package}/(\w+)/` \|", PAGES["docs/architecture.md"], re.MULTILINE))
    assert rows == {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


def test_the_readme_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    section = PAGES["README.md"].partition("## Install")[2].partition("\n## ")[0]
    named = {one for code in re.findall(r"\[([\w,-]+)\]", section) for one in code.split(",")}
    assert extras.keys() == (named | set(re.findall(r"`([\w-]+)`\s\(", section))) & extras.keys()


@pytest.mark.parametrize("package", ["earmark_server", "earmark_training"])
def test_the_layers_are_those_of_the_contracts(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one.get("containers") == [package])
    (text,) = re.findall(
        rf"^- `{package}`: ((?:.+\n)(?:  .+\n)*)", PAGES["docs/architecture.md"], re.MULTILINE
    )
    layers = [re.findall(r"`(\w+)`", layer) for layer in text.split("→")]
    assert layers == [re.findall(r"\w+", layer) for layer in contract["layers"]]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_the_index_lists_every_page_of_the_documentation() -> None:
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES["docs/README.md"])}
    assert set(DOCS.glob("*.md")) - {DOCS / "README.md"} <= linked
