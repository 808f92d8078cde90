"""The parts of a release agree: the version where it is stated, the metadata, the source distribution."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from earmark_cli.__main__ import main as earmark
from earmark_server.__main__ import main as earmark_server
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from support.paths import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
ADDRESS = "https://github.com/someone/earmark"


def metadata() -> Any:
    return ProjectMetadata(str(REPOSITORY), PluginManager())


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("Dockerfile", r"^ARG VERSION=(.+)$"),
        ("deploy/kubernetes/README.md", r"example\.org/earmark:([\w.]+)"),
        ("docs/releasing.md", r"\bv?(\d+\.\d+\.\d+)\b"),
        ("client/earmark_web/openapi.json", r'^    "version": "(.+)",$'),
    ],
)
def test_the_version_is_the_same_wherever_it_is_repeated(name: str, pattern: str) -> None:
    found = set(re.findall(pattern, (REPOSITORY / name).read_text(), re.MULTILINE))
    assert found == {VERSION}


def test_the_images_of_kubernetes_have_the_version() -> None:
    found = [
        image["newTag"]
        for path in (REPOSITORY / "deploy/kubernetes").rglob("kustomization.yaml")
        for image in yaml.safe_load(path.read_text()).get("images", ())
    ]
    assert found
    assert set(found) == {VERSION}


def test_the_changelog_has_the_version_with_its_date() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\S+)$", text, re.MULTILINE)
    assert released[0][0] == VERSION
    dates = [datetime.date.fromisoformat(date) for _, date in released]
    assert dates == sorted(dates, reverse=True)


@pytest.mark.parametrize(("program", "run"), [("earmark", earmark), ("earmark-server", earmark_server)])
def test_a_program_prints_its_version(
    program: str, run: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        run(["--version"])
    assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_metadata_of_a_published_package_has_absolute_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARMARK_REPOSITORY", ADDRESS)
    core = metadata().core
    assert core.urls["Repository"] == ADDRESS
    targets = re.findall(r"\]\(([^)]+)\)", core.readme)
    assert targets
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert f"![The terminal while the demo runs]({ADDRESS}/raw/v{VERSION}/docs/terminal.svg)" in core.readme
    assert f"({ADDRESS}/blob/v{VERSION}/docs/limits.md)" in core.readme


@pytest.mark.skipif((REPOSITORY / "PKG-INFO").exists(), reason="a source distribution keeps its metadata")
def test_the_metadata_of_a_checkout_names_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EARMARK_REPOSITORY", raising=False)
    core = metadata().core
    assert core.urls == {}
    assert core.readme == (REPOSITORY / "README.md").read_text()


def test_ci_tests_every_version_of_python_that_the_metadata_names() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_source_distribution_has_every_file_of_the_repository(tmp_path: Any) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a Git repository")
    from hatchling.builders.sdist import SdistBuilder

    included = {one.distribution_path for one in SdistBuilder(str(REPOSITORY)).recurse_included_files()}
    tracked = {path for path in listed.stdout.splitlines() if os.path.isfile(REPOSITORY / path)}
    assert tracked - included == set()
    assert not [path for path in included if path.startswith((".venv", "data/", "runs/"))]


def test_the_source_distribution_has_nothing_else_that_lies_in_a_checkout(tmp_path: Any) -> None:
    from hatchling.builders.sdist import SdistBuilder

    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for stray in ("tokens", "recordings/a.wav", "inference/response.json", "docs/page.md"):
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / stray).touch()
    included = {one.distribution_path for one in SdistBuilder(str(tmp_path)).recurse_included_files()}
    assert {"pyproject.toml", "docs/page.md"} <= included
    assert not included & {"tokens", "recordings/a.wav", "inference/response.json"}


def release_notes(tag: str, folder: Any = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "scripts/release_notes.py"), tag]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_release_notes_are_the_section_of_the_changelog() -> None:
    done = release_notes(f"v{VERSION}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (REPOSITORY / "CHANGELOG.md").read_text()
    assert "\n## " not in done.stdout


@pytest.mark.parametrize("tag", ["v0.0.1", VERSION, "v" + VERSION + "rc1"])
def test_a_tag_other_than_the_version_is_not_released(tag: str) -> None:
    done = release_notes(tag)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the tag is {tag}: expected v{VERSION}" in done.stderr


@pytest.mark.parametrize(
    "changelog", ["", f"## [{VERSION}]\n\n- New.\n", f"## [{VERSION}] - 2026-01-02\n\n## [0.1.0]"]
)
def test_a_version_without_a_section_is_not_released(changelog: str, tmp_path: Any) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("pyproject.toml", "scripts/release_notes.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    done = release_notes(f"v{VERSION}", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "CHANGELOG.md: there is no section" in done.stderr
