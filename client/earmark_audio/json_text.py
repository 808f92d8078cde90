"""JSON of texts that may be no Unicode, such as names of files."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# A backslash, or a pair of surrogates, which stays as it is; or an unpaired surrogate.
_ESCAPE = re.compile(r"(\\\\|\\ud[89ab]..\\ud[c-f]..)|\\(ud[89a-f]..)")


def json_text(
    document: object, *, indent: int | None = None, default: Callable[[Any], object] | None = None
) -> str:
    r"""Return a document as JSON, in which bytes that are not UTF-8 are text, such as `\udce9` for 0xE9.

    Python's own JSON has unpaired surrogates for them, which many parsers reject (RFC 8259, section 8.2).
    """
    text = json.dumps(document, indent=indent, default=default)
    return _ESCAPE.sub(lambda found: found[1] or rf"\\{found[2]}", text)
