"""How a call can fail.

ClientError
├── ServerUnreachable   nothing answered, or the connection was lost on the way
├── NotJobyard          something answered that does not speak our contract
└── ApiError            the server refused, and says why
"""

from __future__ import annotations

from jobyard.client.shapes import Fault, Problem


class ClientError(Exception):
    """Any failure of a call. The message is a sentence for people and holds no secret."""


class ServerUnreachable(ClientError):
    """No answer from `url`. `in_doubt`: the request may have arrived and may have been carried out."""

    def __init__(self, url: str, because: str, *, in_doubt: bool) -> None:
        self.url = url
        self.in_doubt = in_doubt
        super().__init__(
            f"no answer from {url} ({because}); start the server with `make run`, or set JOBYARD_URL to where it runs"
        )


class NotJobyard(ClientError):
    """`url` answers, and it is another program, or a gateway in between."""

    def __init__(self, url: str, answer: str) -> None:
        self.url = url
        super().__init__(f"{url} does not answer like a Jobyard server ({answer}); is JOBYARD_URL right?")


class ApiError(ClientError):
    """The server refused. `status` is of HTTP, `retry_after` in seconds where the server named it."""

    def __init__(self, status: int, problem: Problem, retry_after: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(self._sentence())

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def title(self) -> str:
        return self.problem.title

    @property
    def detail(self) -> str | None:
        return self.problem.detail

    @property
    def errors(self) -> list[Fault]:
        return self.problem.errors

    @property
    def request_id(self) -> str | None:
        return self.problem.request_id

    def _sentence(self) -> str:
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.problem}{request}"
