"""`@handler("type")` binds a type of job to the function that does it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from jobyard.domain.lifecycle import Fail
from jobyard.store.dispatch import Claimed
from jobyard.worker.context import Context
from jobyard.worker.link import Link

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True, slots=True)
class Handler:
    """A function with what its signature says: whether it is awaited, what its payload must be, and whether it
    wants the context. `process`: its attempts run in child processes."""

    type: str
    function: Function
    is_async: bool
    decode: Callable[[str], Any]
    payload_name: str | None
    context_name: str | None
    process: bool = False

    def arguments(self, claimed: Claimed, link: Callable[[], Link]) -> dict[str, Any] | Fail:
        """What to call the function with, or Fail when the payload is not what its annotation asks for."""
        given: dict[str, Any] = {}
        if self.payload_name:
            try:
                given[self.payload_name] = self.decode(claimed.payload)
            except ValueError as misfit:  # msgspec's, pydantic's and json's validation errors are all that
                return Fail(
                    f"the payload does not fit the handler of {self.type!r}: {misfit}", "InvalidPayload"
                )
        if self.context_name:
            given[self.context_name] = Context(claimed, link())
        return given


class HandlerError(Exception):
    """A function that cannot be a handler, or a type that has two."""


@dataclass(slots=True)
class Handlers:
    """The handlers of one worker, by type."""

    _by_type: dict[str, Handler] = field(default_factory=dict[str, Handler])

    def add(self, type: str, function: Function, *, process: bool = False) -> None:
        if type in self._by_type:
            raise HandlerError(
                f"two handlers for type {type!r}: {_place(self._by_type[type].function)} and {_place(function)}"
            )
        self._by_type[type] = read_signature(type, function, process=process)

    def get(self, type: str) -> Handler:
        return self._by_type[type]

    def __contains__(self, type: str) -> bool:
        return type in self._by_type

    def types(self) -> list[str]:
        return sorted(self._by_type)

    def merged(self, other: Iterable[Handler]) -> Handlers:
        """These handlers and, for types they lack, the others: a user's own come before the built-in ones."""
        return Handlers({h.type: h for h in other} | self._by_type)

    def __iter__(self) -> typing.Iterator[Handler]:
        return iter(self._by_type.values())


registered = Handlers()
"""Where `@handler` puts functions; `jobyard worker --app MODULE` runs them."""


def handler(type: str, *, process: bool = False) -> Callable[[F], F]:
    """Run jobs of this type with the decorated function, `async def` or `def`:

        @handler("greet")
        async def greet(payload: Greeting, ctx: Context) -> dict[str, str]: ...

    The payload is validated against its annotation; one that does not fit fails the job for good. `ctx` may be
    left out. What is returned is kept as the job's result; what is raised makes it try again.

    With `process=True` it runs in a child process of the worker, one job at a time, for code that blocks, leaks or
    crashes: there its time limit ends whatever it does, and a crash takes no other job with it.
    """

    def bind(function: F) -> F:
        registered.add(type, function, process=process)
        return function

    return bind


def _place(function: Function) -> str:
    """Its name and where it stands, as editors and terminals make links of it."""
    try:
        return f"{function.__qualname__} ({inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]})"
    except (AttributeError, OSError, TypeError):  # an object that can be called, or code without a file
        return repr(function)


def read_signature(type: str, function: Function, *, process: bool = False) -> Handler:
    try:
        hints = typing.get_type_hints(function)
    except Exception as unknown:  # whatever the text of an annotation raises when it is evaluated
        raise HandlerError(f"handler of {type!r}: an annotation cannot be resolved: {unknown}") from unknown
    payload_name: str | None = None
    context_name: str | None = None
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise HandlerError(f"handler of {type!r}: {parameter} cannot be given by its name")
        if hints.get(name) is Context or name == "ctx":
            context_name = name
        elif payload_name:
            raise HandlerError(f"handler of {type!r}: takes a payload and a context, not also {name!r}")
        else:
            payload_name = name
    is_async = inspect.iscoroutinefunction(function)
    decode = _decoder(type, hints.get(payload_name or "", Any))
    return Handler(type, function, is_async, decode, payload_name, context_name, process)


def _decoder(type: str, payload_type: Any) -> Callable[[str], Any]:
    """How a payload's JSON text becomes the annotated type. A pydantic model reads itself."""
    model_validate_json = getattr(payload_type, "model_validate_json", None)
    if model_validate_json is not None:
        return model_validate_json
    try:
        return msgspec.json.Decoder(payload_type).decode
    except TypeError as impossible:
        raise HandlerError(
            f"handler of {type!r}: no payload can be read as {payload_type}: {impossible}"
        ) from (impossible)
