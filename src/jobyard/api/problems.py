"""Error class -> problem: one table, and nothing else translates.

Every error of the API is an RFC 9457 problem with a stable `code`. `type` leads to its paragraph in /docs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from jobyard.domain.errors import (
    BadPageToken,
    DatabaseUnavailable,
    IdempotencyMismatch,
    InvalidJob,
    JobyardError,
    NotAnId,
    NotFound,
    Overloaded,
    TooManyLanes,
    WrongState,
)


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong. `pointer`: the JSON pointer of the value in the body; for a query parameter or a
    header `/` and its name."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Why a request was refused (RFC 9457). `code` is stable; `requestId` finds the request in the server's log."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[Fault] = []
    instance: str | None = None
    request_id: str | None = None


class Refusal(JobyardError):
    """What only the HTTP edge can find wrong."""


class MalformedJson(Refusal):
    pass


class ValidationFailed(Refusal):
    def __init__(self, faults: Sequence[Fault]) -> None:
        count = len(faults)
        super().__init__("one thing is wrong with it" if count == 1 else f"{count} things are wrong with it")
        self.faults = list(faults)


class UnsupportedMediaType(Refusal):
    pass


class TooLarge(Refusal):
    pass


class TooSlow(Refusal):
    pass


class BadRequest(Refusal):
    """What arrived is no HTTP request, or one that can be read in two ways."""


class UriTooLong(Refusal):
    pass


class HeadersTooLarge(Refusal):
    pass


class MethodNotAllowed(Refusal):
    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__(f"this address answers {', '.join(allowed)}")
        self.allowed = allowed


class Unauthenticated(Refusal):
    """`challenges`: the ways in which the key may be shown, as WWW-Authenticate has them."""

    def __init__(self, how: str, challenges: Sequence[bytes]) -> None:
        super().__init__(how)
        self.challenges = challenges


class Misdirected(Refusal):
    pass


class Unexpected(Refusal):
    """Stands in the table for every exception that nobody foresaw; its own words stay in the log."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`detail` replaces the error's own words where those are for operators and not for clients. `closes`: the
    connection ends, since the rest of the request is not wanted."""

    status: int
    code: str
    title: str
    detail: str | None = None
    retry_after: int | None = None
    closes: bool = False


KINDS: dict[type[JobyardError], Kind] = {
    BadRequest: Kind(400, "bad_request", "This is not a request that can be understood", closes=True),
    MalformedJson: Kind(400, "malformed_json", "The body is not JSON"),
    BadPageToken: Kind(
        400,
        "bad_page_token",
        "The page token does not belong to this list",
        "Start again without a pageToken.",
    ),
    Unauthenticated: Kind(401, "unauthenticated", "The key is missing or wrong"),
    NotFound: Kind(404, "not_found", "There is nothing here", "No such job, or no such address."),
    NotAnId: Kind(
        404,
        "not_found",
        "There is nothing here",
        "That is not the id of a job, which looks like 01a2140b-ac18-7e8a-98e2-93720181435e.",
    ),
    MethodNotAllowed: Kind(405, "method_not_allowed", "This address does not take this method"),
    TooSlow: Kind(408, "request_timeout", "The request arrived too slowly", closes=True),
    WrongState: Kind(409, "wrong_state", "This does not apply to the job as it is"),
    TooLarge: Kind(413, "too_large", "The request is too large", closes=True),
    UriTooLong: Kind(414, "uri_too_long", "The address is too long", closes=True),
    UnsupportedMediaType: Kind(415, "unsupported_media_type", "Only JSON is understood", closes=True),
    Misdirected: Kind(421, "misdirected", "This server does not answer to that name"),
    ValidationFailed: Kind(422, "validation_failed", "The request cannot be accepted as it is"),
    InvalidJob: Kind(422, "validation_failed", "The request cannot be accepted as it is"),
    TooManyLanes: Kind(422, "too_many_lanes", "Too many combinations of queue, type and priority"),
    IdempotencyMismatch: Kind(422, "idempotency_mismatch", "The idempotency key belongs to another request"),
    HeadersTooLarge: Kind(431, "headers_too_large", "The headers are too large", closes=True),
    Unexpected: Kind(
        500, "internal_error", "Something went wrong here", "It is in the server's log, under the requestId."
    ),
    Overloaded: Kind(503, "overloaded", "Too much is waiting already", "Come back a little later.", 1),
    DatabaseUnavailable: Kind(
        503,
        "database_unavailable",
        "The database does not answer",
        "Nothing is known to be accepted; try again, best with an Idempotency-Key.",
        1,
    ),
}


def kind_of(error: type[BaseException]) -> Kind:
    """The row of the nearest class that has one."""
    return next((KINDS[cls] for cls in error.__mro__ if cls in KINDS), KINDS[Unexpected])


def problem_of(error: BaseException, request_id: str | None = None, within: str = "") -> Problem:
    """The problem that a client is told. `within` goes before every pointer: the item's place in a bulk."""
    kind = kind_of(type(error))
    return Problem(
        type=f"/docs#{kind.code}",
        title=kind.title,
        status=kind.status,
        code=kind.code,
        detail=kind.detail or str(error),
        errors=[Fault(within + fault.pointer, fault.detail) for fault in _faults_of(error)],
        instance=f"urn:jobyard:request:{request_id}" if request_id else None,
        request_id=request_id,
    )


def _faults_of(error: BaseException) -> list[Fault]:
    match error:
        case ValidationFailed():
            return error.faults
        case InvalidJob():
            return [Fault(error.pointer, str(error))]
        case _:
            return []
