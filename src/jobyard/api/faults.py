"""Everything that is wrong with a body, each with its place: the slow and precise second look."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, NoReturn, cast, get_args, get_origin

import msgspec

from jobyard.api.problems import Fault, MalformedJson

MOST_FAULTS = 100
"""Named in one answer; a body of a million faults must not become an answer of a million."""

LONGEST_INTEGER_DIGITS = 4300
"""What Python itself is willing to read."""

UNKEEPABLE = "contains U+0000 or half of a surrogate pair, which cannot be kept"

_UNKEEPABLE = re.compile("[\x00\ud800-\udfff]")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Every escape of a JSON text in turn, so that an escaped backslash is not taken for the start of one."""

_PLACE = re.compile(r" - at `[^`]*`$")


class _Unrepresentable:
    """Stands in the tree where a number stood that is beyond what can be computed with."""


_UNREPRESENTABLE = _Unrepresentable()


def of_text(raw: bytes, shape: Any) -> list[Fault]:
    """The faults of JSON text: first of numbers and strings anywhere, then, only if there is none, of the schema.
    Raises MalformedJson. The text is known to be shallow."""
    return of_tree(_parse(raw), shape)


def of_tree(tree: Any, shape: Any) -> list[Fault]:
    """The same of a decoded value. The schema is looked at field by field and item by item."""
    return _first(_kept_faults(tree, "")) or _first(_schema_faults(tree, shape, ""))


def without_halves(raw: bytes) -> bytes:
    """The text with U+0000 in place of each half of a surrogate pair: as little to be kept, but it can be read."""
    return _ESCAPE.sub(lambda found: rb"\u0000" if found["half"] else found[0], raw)


def _first(faults: Iterator[Fault]) -> list[Fault]:
    return [fault for fault, _ in zip(faults, range(MOST_FAULTS), strict=False)]


def _parse(raw: bytes) -> Any:
    try:
        # As text: of bytes it would guess UTF-16 and UTF-32, too.
        return json.loads(raw.decode(), parse_constant=_refuse_constant, parse_float=_float, parse_int=_int)
    except UnicodeDecodeError as error:
        raise MalformedJson(f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise MalformedJson("the brackets do not match") from None
    except ValueError as error:
        raise MalformedJson(str(error)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not JSON")


def _float(text: str) -> Any:
    number = float(text)
    return number if math.isfinite(number) else _UNREPRESENTABLE


def _int(text: str) -> Any:
    # As msgspec has it: what leaves the range of 64 bits must at least be a finite double.
    if len(text.lstrip("-")) > LONGEST_INTEGER_DIGITS:
        return _UNREPRESENTABLE
    return int(text)


def _kept_faults(value: Any, pointer: str) -> Iterator[Fault]:
    """Depth is bounded before this is called, hence the plain recursion."""
    match value:
        case str():
            if (found := _text_fault(value)) is not None:
                yield Fault(pointer, found)
        case dict():
            for key, item in cast("dict[str, Any]", value).items():
                place = f"{pointer}/{escape(key)}"
                if (found := _text_fault(key)) is not None:
                    yield Fault(place, f"in the key: {found}")
                yield from _kept_faults(item, place)
        case list():
            for index, item in enumerate(cast("list[Any]", value)):
                yield from _kept_faults(item, f"{pointer}/{index}")
        case _Unrepresentable():
            yield Fault(pointer, "the number is out of range")
        case _:
            pass


def _text_fault(text: str) -> str | None:
    return UNKEEPABLE if _UNKEEPABLE.search(text) else None


def escape(key: str) -> str:
    """A key as a part of a JSON pointer; what no UTF-8 can say is shown as its escape."""
    shown = _UNKEEPABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", key)
    return shown.replace("~", "~0").replace("/", "~1")


def _schema_faults(value: Any, shape: Any, pointer: str) -> Iterator[Fault]:
    inner = _without_null(shape, value)
    bare = get_args(inner)[0] if get_origin(inner) is Annotated else inner
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct) and isinstance(value, dict):
        yield from _struct_faults(cast("dict[str, Any]", value), bare, pointer)
    elif get_origin(bare) in (list, dict):
        yield from _container_faults(value, inner, bare, pointer)
    elif bare is not msgspec.Raw:
        yield from _own_fault(value, shape, pointer)


def _struct_faults(value: Mapping[str, Any], shape: type[msgspec.Struct], pointer: str) -> Iterator[Fault]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    for name, field in fields.items():
        if name in value:
            yield from _schema_faults(value[name], field.type, f"{pointer}/{name}")
        elif field.required:
            yield Fault(f"{pointer}/{name}", "is required")
    for name in value:
        if name not in fields:
            yield Fault(f"{pointer}/{escape(name)}", "is not a field of this request")


def _container_faults(value: Any, shape: Any, bare: Any, pointer: str) -> Iterator[Fault]:
    """The items' own faults; if they have none, what is wrong with the container as a whole."""
    *_, item_shape = get_args(bare)
    clean = True
    for place, item in _items(value, get_origin(bare)):
        for fault in _schema_faults(item, item_shape, f"{pointer}/{place}"):
            clean = False
            yield fault
    if clean:
        yield from _own_fault(value, shape, pointer)


def _items(value: Any, kind: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, kind):
        return
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield escape(key), item
    else:
        for index, item in enumerate(cast("list[Any]", value)):
            yield str(index), item


def _own_fault(value: Any, shape: Any, pointer: str) -> Iterator[Fault]:
    try:
        msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        yield Fault(pointer, _rule(shape, str(error)) or _sentence(str(error)) + _choices(shape, str(error)))


def _rule(shape: Any, message: str) -> str | None:
    """What a pattern asks for in words, where its shape says so: people do not read regular expressions."""
    if "matching regex" not in message:
        return None
    metas = [
        meta
        for part in (shape, *get_args(shape))
        for meta in get_args(part)
        if isinstance(meta, msgspec.Meta)
    ]
    return next((meta.extra["rule"] for meta in metas if meta.extra and "rule" in meta.extra), None)


def _choices(shape: Any, message: str) -> str:
    """What may stand there, where that is a few words."""
    if not message.startswith("Invalid enum value"):
        return ""
    parts = (shape, *get_args(shape))
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    words += [it.value for part in parts if isinstance(part, type) and issubclass(part, Enum) for it in part]
    return f"; it is one of {', '.join(words)}"


def _sentence(message: str) -> str:
    message = _PLACE.sub("", message).replace("`", "")
    return message[:1].lower() + message[1:]


def _without_null(shape: Any, value: Any) -> Any:
    """The one alternative beside None of an optional type."""
    if value is None:
        return shape
    others = [part for part in get_args(shape) if part is not type(None)]
    return others[0] if len(others) == 1 and type(None) in get_args(shape) else shape
