"""How to install an optional part of Earmark, from the metadata of the installed package."""

from __future__ import annotations

import importlib.metadata
import re

_DISTRIBUTION = "earmark"
# A requirement as the metadata has it: name, extras and versions; marker.
_REQUIREMENT = re.compile(r"([\w.-]+)[^;]*(?:;(.*))?")


def install_command(extra: str) -> str:
    """Return the sentence part that says how to install what an extra of Earmark lacks.

    It names the packages themselves, which works wherever Earmark was installed from: a checkout, a wheel
    or an index. Such as "`pip install 'soxr>=0.5'` (the extra `server`)".
    """
    requirements = _requirements(extra)
    missing = [one for name, one in requirements.items() if not _is_installed(name)]
    if not requirements:  # The installation is older than the extra.
        return f"the extra `{extra}` of Earmark"
    packages = " ".join(f"'{one}'" for one in missing or requirements.values())
    return f"`pip install {packages}` (the extra `{extra}`)"


def installed_version(distribution: str) -> str | None:
    """Return the version of a package that is installed; None if it is missing."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_packages(extra: str) -> dict[str, str | None]:
    """Return the packages of an extra with the version that is installed; None for one that is missing."""
    return {name: installed_version(name) for name in _requirements(extra)}


def _requirements(extra: str) -> dict[str, str]:
    """Return the packages of an extra with their versions. It includes those of the extras that it names."""
    found: dict[str, str] = {}
    for line in importlib.metadata.requires(_DISTRIBUTION) or ():
        match = _REQUIREMENT.fullmatch(line)
        if match and re.search(rf"\bextra == (['\"]){extra}\1", match[2] or ""):
            found[match[1]] = line.split(";")[0].strip()
    return found


def _is_installed(distribution: str) -> bool:
    return installed_version(distribution) is not None
