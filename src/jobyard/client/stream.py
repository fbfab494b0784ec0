"""Values that are fetched as they are asked for, also in the very bytes of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Stream(Generic[T]):
    """`for job in stream` gives values; `stream.json()` gives each as the server wrote it, with the fields that this
    version does not know, and `read` makes a value of it. Every pass asks the server anew."""

    def __init__(self, bodies: Callable[[], Iterator[bytes]], read: Callable[[bytes], T]) -> None:
        self._bodies = bodies
        self.read = read

    def __iter__(self) -> Iterator[T]:
        return map(self.read, self._bodies())

    def json(self) -> Iterator[bytes]:
        return self._bodies()
