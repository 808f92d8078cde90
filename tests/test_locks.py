"""The images install what requirements/ says; it has to be what pyproject.toml and constraints.txt say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = {
    "client": PROJECT["dependencies"],
    "web": PROJECT["dependencies"] + EXTRAS["web"],
    "server": PROJECT["dependencies"] + EXTRAS["server"] + EXTRAS["otel"],
    "trainer": PROJECT["dependencies"] + EXTRAS["server"] + EXTRAS["train"],
}


def pins(path: Path) -> dict[str, set[str]]:
    """Each package's versions, of which environment markers may choose one."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.+]+)", path.read_text(), re.MULTILINE):
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return versions


TORCH = pins(ROOT / "requirements/torch.txt")


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_has_every_requirement_in_a_version_that_is_allowed(name: str) -> None:
    locked = pins(ROOT / f"requirements/{name}.txt") | (TORCH if name == "trainer" else {})
    for requirement in map(Requirement, WANTED[name]):
        if requirement.name == "earmark":
            continue
        found = locked.get(canonicalize_name(requirement.name))
        assert found, f"{requirement.name} is not in requirements/{name}.txt: run `make lock`"
        assert all(requirement.specifier.contains(one) for one in found), f"{requirement}: run `make lock`"


def test_the_images_have_the_versions_that_are_tested() -> None:
    tested = pins(ROOT / "constraints.txt")
    for path in (ROOT / "requirements").glob("*.txt"):
        for name, versions in pins(path).items():
            assert versions == tested.get(name, versions), f"{name} in {path.name}: run `make lock`"


@pytest.mark.parametrize("name", [*WANTED, "build"])
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    assert "://" not in text
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert packages
    assert all("--hash=sha256:" in package for package in packages)
