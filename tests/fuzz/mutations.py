"""Strategies for malformed input: mutations of valid bytes, and messages with arbitrary values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

_NUMBERS = (0, 1, 2, 3, 7, 8, 100, 8000, 16_000, 48_000, 192_000, 2**31 - 1, 2**32 - 1, 2**63 - 1)
_EXTREMES = [
    number.to_bytes(size, order)
    for number in _NUMBERS
    for size in (1, 2, 4, 8)
    for order in ("little", "big")
    if number < 256**size
]
_TEXTS = ("", "yes", "no", "low", "earmark-en", "tiny", "\0", "a" * 129, "ü" * 70, "🦔")


@st.composite
def mutated(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """Draw one of the seeds with a few bytes changed, deleted, repeated or inserted."""
    data = bytearray(seeds[draw(st.integers(0, len(seeds) - 1))])
    for _ in range(draw(st.integers(0, 5))):
        # Half of the mutations hit the first 64 bytes: headers are there.
        limit = draw(st.sampled_from((min(len(data), 64), len(data))))
        at = draw(st.integers(0, limit))
        match draw(st.integers(0, 5)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                extreme = draw(st.sampled_from(_EXTREMES))
                data[at : at + len(extreme)] = extreme
            case 2:
                del data[at : at + draw(st.sampled_from((1, 2, 4, 16, 100)))]
            case 3:
                data[at:at] = draw(st.binary(min_size=1, max_size=20))
            case 4:
                length = draw(st.sampled_from((4, 30, 200)))
                data[at:at] = data[at : at + length] * draw(st.sampled_from((1, 2, 50)))
            case _:
                del data[at:]
    return bytes(data)


@st.composite
def messages(draw: Any, kind: type[Message]) -> Message:
    """Draw a message of this type with any of its fields set, within and beyond their limits."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        count = draw(st.integers(0, 3)) if field.is_repeated else 1
        for _ in range(count):
            if field.message_type is not None:
                value = draw(messages(field.message_type._concrete_class))
                target = getattr(message, field.name)
                (target.add() if field.is_repeated else target).CopyFrom(value)
            elif field.is_repeated:
                getattr(message, field.name).append(draw(_scalars(field)))
            else:
                setattr(message, field.name, draw(_scalars(field)))
    return message


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_ENUM:
            near = st.integers(-1, 12)
            return (
                near | st.sampled_from([n for n in _NUMBERS if n < 2**31]) | st.integers(-(2**31), 2**31 - 1)
            )
        case FieldDescriptor.CPPTYPE_INT64:
            return st.sampled_from(_NUMBERS[:-1]) | st.integers(-(2**63), 2**63 - 1)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats(width=32)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=300)
    return st.sampled_from(_TEXTS) | st.text(max_size=200)
