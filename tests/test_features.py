"""docs/features.md: every command of the table exists, with its options, targets, services and files."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
import yaml
from earmark_cli.command_line import build_parser
from earmark_server.command_line import read_settings
from support.paths import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

ROWS = re.findall(r"^\| ([^|]+) \| `(.+?)` \| (.+) \|$", (REPOSITORY / "docs/features.md").read_text(), re.M)
TARGETS = set(re.findall(r"^([\w-]+)(?: [\w-]+)*:", (REPOSITORY / "Makefile").read_text(), re.M)) | {"test"}
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]


def test_there_are_features() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize(("feature", "command", "pages"), ROWS, ids=[row[0] for row in ROWS])
def test_the_command_of_a_feature_exists(
    feature: str, command: str, pages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "](" in pages, feature
    program, *words = shlex.split(command)
    match program:
        case "earmark":
            assert callable(build_parser().parse_args(words).run)
        case "earmark-train":
            training = pytest.importorskip("earmark_training.__main__", exc_type=ImportError)
            training.build_parser().parse_args(words)
        case "earmark-server":
            monkeypatch.chdir(tmp_path)
            (tmp_path / "mine.onnx").touch()
            if "--new-token" in words:
                with pytest.raises(SystemExit, match=r"^0$"):
                    read_settings(words, {})
            else:
                read_settings(words, {})
        case "make":
            assert set(words) <= TARGETS
        case "docker":
            assert words[0] == "build" or set(words) & set(COMPOSE) or words[-2:] == ["up", "-d"]
            assert "--profile" not in words or any(
                "observe" in one.get("profiles", ()) for one in COMPOSE.values()
            )
        case "kubectl" | "envoy":
            assert (REPOSITORY / words[-1]).exists()
        case "uv":
            assert (REPOSITORY / words[3]).is_file()
        case "python":
            assert (REPOSITORY / f"{words[1].replace('.', '/')}.py").is_file()
        case "curl" | "git" | "dvc":
            pass  # other tests run these
        case _:
            assert (REPOSITORY / program).is_file()
