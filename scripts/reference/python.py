"""The reference of the package's public names, from their signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from reference import table


def names_of(module_name: str) -> str:
    """Every name in the module's `__all__`."""
    module = importlib.import_module(module_name)
    return "\n\n".join(
        _described(name, getattr(module, name)) for name in sorted(module.__all__, key=str.lower)
    )


def _described(name: str, thing: Any) -> str:
    parts = [f"### `{name}`"]
    if not inspect.isclass(thing):
        return "\n\n".join([*parts, f"`{name}{_signature(thing)}`", inspect.getdoc(thing) or ""])
    parts.append(f"{_kind(thing)} {_bases(thing)}".strip())
    if _is_called(thing):
        parts.append(f"`{name}{_signature(thing.__init__)}`")
    parts.append(_doc_of(thing))
    if fields := _fields(thing):
        parts.append(table(("field", "type"), [(f"`{field}`", f"`{kind}`") for field, kind in fields]))
    if members := list(_members(thing)):
        parts.append(table(("member", "meaning"), members))
    if properties := list(_properties(thing)):
        parts.append(table(("attribute", "type", "meaning"), properties))
    return "\n\n".join(filter(None, parts))


def _kind(thing: type) -> str:
    if issubclass(thing, BaseException):
        return "An exception."
    return "Keyword arguments, all optional." if typing.is_typeddict(thing) else ""


def _bases(thing: type) -> str:
    if not issubclass(thing, BaseException):
        return ""
    base = thing.__mro__[1]
    return f"It is a `{base.__name__}`." if base.__module__.startswith("jobyard") else ""


def _is_called(thing: type) -> bool:
    """Whether users make one themselves: a plain class with an `__init__` of its own, and no exception."""
    made_by_us = issubclass(thing, BaseException) or thing.__name__ == "Context"
    return inspect.isfunction(thing.__init__) and not (made_by_us or _fields(thing))


def _doc_of(thing: type) -> str:
    doc = inspect.cleandoc(thing.__doc__ or "")
    # Dataclasses write their signature where no docstring stands.
    return f"`{doc}`" if doc.startswith(f"{thing.__name__}(") else doc


def _fields(thing: type) -> list[tuple[str, str]]:
    if issubclass(thing, msgspec.Struct):
        names = thing.__struct_fields__
    elif typing.is_typeddict(thing) or hasattr(thing, "__dataclass_fields__"):
        names = tuple(thing.__annotations__)
    else:
        return []
    said: dict[str, Any] = {}
    for base in reversed(thing.__mro__):
        said |= getattr(base, "__annotations__", {})
    return [(name, _annotation(said[name])) for name in names if not name.startswith("_")]


def _members(thing: type) -> Iterator[tuple[str, str]]:
    for name, member in vars(thing).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            yield f"`{name}{_signature(member)}`", inspect.getdoc(member) or ""


def _properties(thing: type) -> Iterator[tuple[str, str, str]]:
    for name, member in vars(thing).items():
        read = getattr(member, "fget", None) or getattr(member, "func", None)
        if read is not None and not name.startswith("_"):
            yield f"`{name}`", f"`{_annotation(read.__annotations__['return'])}`", inspect.getdoc(read) or ""


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parts: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        parts.append(_parameter(parameter))
    returned = signature.return_annotation
    arrow = "" if returned in (signature.empty, "None", None) else f" -> {_annotation(returned)}"
    return f"({', '.join(parts)}){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return text
    # A sentinel's own words are an address in memory.
    return f"{text} = {'...' if type(parameter.default) is object else repr(parameter.default)}"


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", None)
    return text or getattr(annotation, "__name__", str(annotation))
