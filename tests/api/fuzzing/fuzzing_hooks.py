"""Loaded by schemathesis, in its own environment: what our document means and a JSON schema cannot say."""

from __future__ import annotations

import itertools
from typing import Any

import schemathesis

LONGEST_KEY = 255
numbers = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    key = case.headers.get("Idempotency-Key")
    if _is_good(key):
        # With one example for all, the second body would be refused rightly, and no other ever tried.
        case.headers["Idempotency-Key"] = f"{key[: LONGEST_KEY - 10]}{next(numbers):010}"
    body = case.body if isinstance(case.body, dict) else {}
    jobs = body.get("jobs", [body])
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict):
            _write_whole_numbers_as_integers(job)
            _leave_one_of_what_excludes_another(job)


def _is_good(key: Any) -> bool:
    return isinstance(key, str) and 0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()


def _write_whole_numbers_as_integers(job: dict[str, Any]) -> None:
    """To JSON Schema 7.0 is an integer; to us, as to most clients, it is none."""
    for name in ("priority", "maxAttempts", "limit"):
        value = job.get(name)
        if isinstance(value, float) and value.is_integer():
            job[name] = int(value)


def _leave_one_of_what_excludes_another(job: dict[str, Any]) -> None:
    """The document says in words that a job has a time or a delay, not both."""
    if job.get("runAt") is not None and isinstance(job.get("delaySeconds"), int | float):
        del job["delaySeconds"]
