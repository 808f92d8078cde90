"""Write the documentation of the Python API, from its docstrings, with pdoc.

    python -W error scripts/build_api_docs.py FOLDER

Exits with 1 if a public name, or a public method, has no docstring or no place on its page.
"""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import pdoc
import pdoc.render

PACKAGES = ("earmark_client", "earmark_spotter")


def main() -> int:
    """Check the public names, and write a page per package."""
    problems = []
    for package in map(import_module, PACKAGES):
        names = {name: getattr(package, name) for name in package.__all__}  # imports those that are lazy
        problems += [f"{package.__name__}.{name}: no docstring" for name in undocumented(names)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    folder = Path(sys.argv[1])
    pdoc.render.configure(docformat="markdown", footer_text="Earmark", show_source=False)
    pdoc.pdoc(*PACKAGES, output_directory=folder)
    for package in PACKAGES:
        page = (folder / f"{package}.html").read_text()
        missing = [name for name in import_module(package).__all__ if not re.search(rf'id="{name}"', page)]
        if missing:
            print(f"{package}: not on its page: {', '.join(missing)}", file=sys.stderr)
            return 1
    print(f"{folder}/index.html")
    return 0


def undocumented(names: dict[str, object]) -> list[str]:
    """Return the names, and the public methods of classes, that have no docstring of their own."""
    found = []
    for name, value in names.items():
        if not inspect.isclass(value) and not inspect.isfunction(value):
            continue  # a constant, or a type alias
        if not value.__doc__:
            found.append(name)
        for member, attribute in vars(value).items() if inspect.isclass(value) else ():
            function = attribute.fget if isinstance(attribute, property) else attribute
            function = getattr(function, "__func__", function)
            if not member.startswith("_") and inspect.isfunction(function) and not function.__doc__:
                found.append(f"{name}.{member}")
    return found


if __name__ == "__main__":
    sys.exit(main())
