"""How a setting is declared: its default, help text, unit, and the values that it allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import Field

Value = TypeVar("Value")

_KEY = "declaration"  # in a field's metadata


class SettingsError(ValueError):
    """A setting has a value that is not allowed; the message says which values are."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """The declaration of one setting, without its name, type and default."""

    help_text: str
    unit: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """The allowed values, in words; empty if any value of the type is allowed."""
        if self.choices:
            return " or ".join((", ".join(self.choices[:-1]), self.choices[-1]))
        return "" if self.low is None else f"{self.low} to {self.high}"

    def check(self, name: str, hint: Any, value: Any) -> None:
        """Check the type and the range of a value; raises SettingsError, which says `name`."""
        if not _has_type(value, hint):
            raise SettingsError(f"{name} must be of type {hint}, but is {value!r}.")
        texts = value if hint == tuple[str, ...] else (value,)
        if any("\0" in text for text in texts if isinstance(text, str)):
            raise SettingsError(f"{name} must not contain a null character, but is {value!r}.")
        if self.choices and value not in self.choices:
            raise SettingsError(f"{name} must be {self.allowed}, but is {value!r}.")
        low, high = self.low, self.high
        if low is not None and high is not None and not low <= value <= high:  # so is NaN
            unit = f" {self.unit}" if self.unit else ""
            raise SettingsError(f"{name} must be {self.allowed}{unit}, but is {value}.")


def setting(
    default: Value,
    help_text: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Value:
    """Declare a setting as a field of a dataclass.

    `help_text`: a phrase for `--help`, without the unit, the range and the default, which are appended.
    """
    declaration = Declaration(help_text, unit, low, high, choices)
    return field(default=default, metadata={_KEY: declaration})


def option_of(each: Field[Any]) -> str:
    """Return the option of the command, and in a configuration file the key after its dashes."""
    return "--" + each.name.replace("_", "-")


def declaration_of(each: Field[Any]) -> Declaration:
    """Return the declaration of a dataclass's field that `setting` has made."""
    declaration: Declaration = each.metadata[_KEY]
    return declaration


def _has_type(value: object, hint: Any) -> bool:
    # An int is valid for a float. A bool, although a subclass of int, is not valid for a number.
    types: tuple[type, ...] = {float: (int, float), tuple[str, ...]: (tuple,)}.get(hint, (hint,))
    return isinstance(value, types) and (hint is bool or not isinstance(value, bool))
