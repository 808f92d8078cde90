"""The JSON output matches docs/output.schema.json, and the schema is complete."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import soundfile
from support.earmark_command import RATE_HZ, earmark, json_lines, samples
from support.output_schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


NULLABLE = {"level_dbfs", "snr_db"}
KINDS = {one["$ref"].rpartition("/")[2] for one in SCHEMA["oneOf"]}


def _closed(schema: Any) -> Any:
    """Return the schema with all undocumented keys forbidden."""
    schema = copy.deepcopy(schema)

    def objects(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if node.get("type") == "object":
                yield node
            for value in node.values():
                yield from objects(value)
        elif isinstance(node, list):
            for value in node:
                yield from objects(value)

    for one in objects(schema):
        one["additionalProperties"] = False
    return schema


@pytest.fixture(scope="module")
def lines(address: str, recording: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return lines of all types that need no microphone and no folder of recordings."""
    unfinished = tmp_path_factory.mktemp("unfinished") / "recording.wav"
    soundfile.write(unfinished, samples(), RATE_HZ, subtype="PCM_16")
    data = unfinished.read_bytes()
    unfinished.write_bytes(data[:4] + bytes(4) + data[8:40] + bytes(4) + data[44:])
    commands = [
        ["spot", recording, unfinished, "absent.wav"],
        ["spot", "-"],
        ["classify", recording],
        ["plot", recording, "--out", unfinished.with_suffix(".html")],
        ["models"],
        ["health"],
    ]
    printed = [
        earmark(*command, "--json", "--server", address, stdin=samples()[:RATE_HZ].tobytes()).stdout
        for command in commands
    ]
    return [line for one in printed for line in json_lines(one)]


def test_every_line_matches_the_schema(lines: list[dict[str, Any]]) -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(_closed(SCHEMA))
    for line in lines:
        validator.validate(line)
    # test_listen.py, test_tune.py and test_check.py check the other types.
    assert {line["type"] for line in lines} == KINDS - {"device", "tuned", "audio", "installation"}


def test_the_schema_rejects_missing_or_null_keys(lines: list[dict[str, Any]]) -> None:
    import jsonschema

    validator = jsonschema.Draft202012Validator(SCHEMA)
    for line in lines:
        validator.validate(line | {"new": 1})
        for name in line:
            assert not validator.is_valid({key: value for key, value in line.items() if key != name})
            if name not in NULLABLE:
                assert not validator.is_valid(line | {name: None})
