"""The server is away while somebody watches: said once when it goes, and once when it is back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobyard.client import ClientError


class Outage:
    """`failure` is what the last try met; None while all is well."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.failure: ClientError | None = None

    def goes_on(self, failure: ClientError, _pause: float) -> None:
        if self.failure is None:
            self._tell(f"{failure}; waiting for it to come back")
        self.failure = failure

    def is_over(self) -> None:
        self.failure = None
        self._tell("the server is back")
