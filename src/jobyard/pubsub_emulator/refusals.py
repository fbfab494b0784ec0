"""What the emulator refuses, by the codes that the service uses."""

from __future__ import annotations

from typing import ClassVar

from grpc import StatusCode


class Refusal(Exception):
    code: ClassVar[StatusCode]


class InvalidArgument(Refusal):
    code = StatusCode.INVALID_ARGUMENT


class NotFound(Refusal):
    code = StatusCode.NOT_FOUND


class AlreadyExists(Refusal):
    code = StatusCode.ALREADY_EXISTS


class FailedPrecondition(Refusal):
    code = StatusCode.FAILED_PRECONDITION


class Unimplemented(Refusal):
    code = StatusCode.UNIMPLEMENTED


class Unavailable(Refusal):
    code = StatusCode.UNAVAILABLE
