"""What can go wrong with a request or with the database, as one tree.

    JobyardError
    ├── NotFound             no such job, or no such address
    │   └── NotAnId          what stands in the place of a job's id is no UUID
    ├── InvalidJob           what was asked cannot be kept; names the place
    │   ├── TooManyLanes     the tenant has used up its (queue, type, priority) combinations
    │   └── IdempotencyMismatch   the key was used with another body
    ├── WrongState           what was asked does not apply to a job in this state
    ├── BadPageToken         the token does not belong to these filters
    ├── Overloaded           a bounded queue is full; come back later
    ├── DatabaseUnavailable  PostgreSQL did not answer in time; nothing is known to be accepted
    ├── WorkerExpired        the worker's row is gone and its leases with it
    └── LeaseLost            the attempt is not this worker's any more

The HTTP edge turns each into a problem by one table; nothing else translates.
"""

from __future__ import annotations


class JobyardError(Exception):
    """Base of every error that is ours."""


class NotFound(JobyardError):
    pass


class NotAnId(NotFound):
    pass


class InvalidJob(JobyardError):
    """`pointer` is the JSON pointer of the value at fault, within the job."""

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


class TooManyLanes(InvalidJob):
    pass


class IdempotencyMismatch(InvalidJob):
    pass


class WrongState(JobyardError):
    pass


class BadPageToken(JobyardError):
    pass


class Overloaded(JobyardError):
    pass


class DatabaseUnavailable(JobyardError):
    pass


class WorkerExpired(JobyardError):
    pass


class LeaseLost(JobyardError):
    pass
