"""Names of a package that are imported on first use, so that importing the package is fast."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def lazy_names(package: str, names: Collection[str], modules: Collection[str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose `names` are defined in some of its `modules`."""

    def get(name: str) -> Any:
        if name in names:
            for module in modules:
                defined = vars(import_module(f"{package}.{module}"))
                if name in defined:
                    setattr(sys.modules[package], name, defined[name])
                    return defined[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
