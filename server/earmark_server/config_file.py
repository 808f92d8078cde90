"""The server's configuration file, in TOML: the names of the options without their dashes in front."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from typing import Any, get_type_hints

from earmark_audio.argument_parser import did_you_mean

from earmark_server.setting_declaration import SettingsError
from earmark_server.settings import Settings

_MAX_NUMBER = 1 << 53  # larger ones have no exact value

_KINDS = {
    str: "a text in quotation marks",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple[str, ...]: "a list of texts in quotation marks",
}


def read_config_file(path: str) -> dict[str, Any]:
    """Return the settings in a file, by field of Settings. Raises SettingsError, which names the file."""
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # also of bytes that are not UTF-8
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    hints = get_type_hints(Settings)
    names = {each.name.replace("_", "-"): each.name for each in fields(Settings)}
    settings = {}
    for name, value in values.items():
        if name not in names:
            raise SettingsError(f"{path}: there is no setting {name!r}{did_you_mean(name, names)}")
        settings[names[name]] = _checked(path, name, value, hints[names[name]])
    return settings


def _checked(path: str, name: str, value: Any, hint: Any) -> Any:
    if hint == tuple[str, ...]:
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return tuple(texts)
    elif isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    elif hint is float and type(value) is int and abs(value) < _MAX_NUMBER:
        return float(value)
    raise SettingsError(f"{path}: {name} must be {_KINDS[hint]}, but is {value!r}.")
