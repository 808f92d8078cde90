"""docs/features.md: every command of the table exists, with its options, targets, services and files."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
import soundfile
import yaml
from earmark_cli.command_line import build_parser
from earmark_server.command_line import read_settings
from support import tiny_model
from support.earmark_command import RATE_HZ, WORDS, earmark, samples
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
            training = pytest.importorskip("earmark_training.command_line", exc_type=ImportError)
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


RUNS_TO_ITS_END = {"spot", "classify", "plot", "tune", "models", "health"}
COMMANDS = [row[1] for row in ROWS if row[1].split()[0] == "earmark" and row[1].split()[1] in RUNS_TO_ITS_END]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_feature_works(
    command: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    speech = samples()
    for name in ("talk.mp3", "a.flac", "b.flac"):
        soundfile.write(name, speech, RATE_HZ)
    soundfile.write("clip.wav", speech[: 2 * RATE_HZ], RATE_HZ)
    for number in range(3):
        for _, keyword in WORDS:
            folder = tmp_path / "recordings" / keyword
            folder.mkdir(parents=True, exist_ok=True)
            said = tiny_model.recording([(0.5, keyword)], 1.5, seed=number)
            soundfile.write(folder / f"{number}.wav", said, RATE_HZ)
    raw = tiny_model.recording(WORDS, 4.0, rate_hz=8000)
    soundfile.write("raw", raw, 8000, format="RAW", subtype="ULAW")
    done = earmark(*shlex.split(command)[1:], stdin=(tmp_path / "raw").read_bytes(), EARMARK_SERVER=address)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr
    if " spot " in command and "--json" not in command:
        assert "3 detections" in done.stdout
    assert "timeline.html" not in command or (tmp_path / "timeline.html").stat().st_size > 10_000
    assert "--clips" not in command or len(list((tmp_path / "clips").iterdir())) == 6
