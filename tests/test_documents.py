"""What the pages quote, and tell people to type, is what there is."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from earmark_cli.arguments import build_parser
from earmark_server.command_line import read_settings
from earmark_server.settings import Settings
from earmark_server.status import REASONS, CallError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ("quick-reference.md", "troubleshooting.md")


def said() -> list[str]:
    """Every text in the programs, with … for what is put in."""
    found = []
    for folder in ("server", "client"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def quoted() -> list[str]:
    """The messages in the first columns of the page: code that is more than one word, and no command."""
    page = (DOCS / "troubleshooting.md").read_text()
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    found = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    return [code for code in found if " " in code]


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_is_quoted_is_one_that_is_said(message: str) -> None:
    pattern = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
    assert any(pattern.search(text) for text in said()), message


def test_messages_are_quoted() -> None:
    assert len(quoted()) > 20


def commands() -> list[str]:
    pages = "\n".join((DOCS / page).read_text() for page in PAGES)
    blocks = re.findall(r"^```\n(.*?)```", pages, re.DOTALL | re.MULTILINE)
    lines = [line.split(" | ")[-1] for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("earmark")]


@pytest.mark.parametrize("command", commands())
def test_a_command_that_is_shown_can_be_typed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(command, comments=True)
    if program == "earmark":
        assert callable(build_parser().parse_args(arguments).run)
    elif arguments[0] == "--new-token":
        with pytest.raises(SystemExit, match=r"^0$"):
            read_settings(arguments, {})
        assert capsys.readouterr().out
        assert (tmp_path / arguments[2]).exists()
    else:
        assert read_settings(arguments, {}) != Settings()


def test_every_option_and_variable_that_is_named_exists(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for arguments in ([], ["spot"], ["listen"], ["health"], ["classify"], ["web"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args([*arguments, "--help"])
        texts.append(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    texts.append(capsys.readouterr().out)
    known = set(re.findall(r"--[a-z][a-z-]+|EARMARK_[A-Z_]+", " ".join(texts)))
    known.add("EARMARK_TLS")
    for page in PAGES:
        text = (DOCS / page).read_text()
        named = set(re.findall(r"--[a-z][a-z-]+|EARMARK_[A-Z_]+\b", text))
        assert named <= known, named - known


def test_every_reason_is_explained_with_its_status() -> None:
    page = (DOCS / "quick-reference.md").read_text()
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| ([A-Z_]+) \|", page, re.MULTILINE)
    explained = {reason: status for reasons, status in rows for reason in re.findall(r"[A-Z_]+", reasons)}
    assert explained == {reason: CallError(reason, "").code.name for reason in REASONS}


def test_every_link_of_a_page_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *DOCS.glob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"
