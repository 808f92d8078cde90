"""What the images and compose.yaml set is what the server reads."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from earmark_server.settings import Settings

ROOT = Path(__file__).parents[1]
SERVER = {f"EARMARK_{one.name.upper()}" for one in fields(Settings)}


def server_part(name: str) -> str:
    text = (ROOT / name).read_text()
    begin, end = ("FROM runtime AS server", r"\Z") if name == "Dockerfile" else ("^  server:", r"^  \w+:")
    found = re.search(f"{begin}(.*?)(?:{end})", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_every_variable_of_the_server_is_a_setting(name: str) -> None:
    pattern = r"(EARMARK_\w+)=" if name == "Dockerfile" else r"^      (EARMARK_\w+):"
    named = set(re.findall(pattern, re.sub(r"#.*", "", server_part(name)), re.MULTILINE))
    assert named
    assert named <= SERVER


def test_a_server_drains_before_its_container_is_killed() -> None:
    """By `docker stop`, which gives 10 s, and by compose."""
    image = re.search(r"EARMARK_DRAIN_GRACE_S=(\d+)", server_part("Dockerfile"))
    compose = re.search(r'EARMARK_DRAIN_GRACE_S: "(\d+)"', server_part("compose.yaml"))
    stop = re.search(r"stop_grace_period: (\d+)s", server_part("compose.yaml"))
    assert image
    assert compose
    assert stop
    assert int(image[1]) < 10
    assert int(compose[1]) < int(stop[1])
