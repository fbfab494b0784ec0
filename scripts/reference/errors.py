"""The reference of errors: the table of problems, the reasons of failed jobs, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterable

from jobyard.api.problems import KINDS, Kind
from jobyard.domain.lifecycle import DEAD_LETTER_REASONS, Reason
from reference import table

ADVICE = {
    "bad_request": "Look at the bytes that were sent: they are not HTTP/1.1 as the standard has it. Most often a proxy or a hand-written client is at fault.",
    "malformed_json": "Mend the body; `detail` says at which byte the JSON ends to be JSON.",
    "bad_page_token": "Begin the list again without `pageToken`. A token belongs to the list and the filters it came with.",
    "unauthenticated": "Send `Authorization: Bearer` with the server's `JOBYARD_KEY`.",
    "not_found": "Check the id and the address. A job that is older than its retention is gone; an id that is no UUID is answered alike.",
    "method_not_allowed": "Use a method that the `Allow` header names.",
    "request_timeout": "Send the request faster, or in smaller parts: many jobs fit into several bulks.",
    "too_large": "Send less: split a bulk, or keep large data elsewhere and put its address into the payload. The server's bounds are settings.",
    "uri_too_long": "Ask with fewer or shorter filters.",
    "unsupported_media_type": "Send JSON with `Content-Type: application/json`.",
    "misdirected": "Call it by a name of its own machine (localhost), or set a `JOBYARD_KEY` on the server.",
    "validation_failed": "Mend what `errors` names: each has the JSON pointer of the value and what is wrong with it. All faults are named together.",
    "too_many_lanes": "Use fewer queues, types or priorities: a lane is one combination of them, and there can be 10,000.",
    "wrong_state": "Read the job: `detail` says where it stands. Only a pending or processing job can be cancelled, only a failed one be run again.",
    "idempotency_mismatch": "Take a new `Idempotency-Key` for a new request; the same key stands for the same bytes for 24 hours.",
    "headers_too_large": "Send fewer or shorter headers. Cookies are not needed.",
    "internal_error": "Look in the server's log for the `requestId`. It is a fault of Jobyard: please report it.",
    "overloaded": "Try again after `Retry-After` seconds. If it lasts, start another API process.",
    "database_unavailable": "Try again after `Retry-After` seconds with the same `Idempotency-Key`: nothing is known to be accepted. If it lasts, look at PostgreSQL.",
}

REASONS = {
    Reason.NON_RETRYABLE: (
        "The handler returned `Fail`, or the payload does not fit the handler.",
        "Read the error; mend the payload or what it speaks of. Another try would end the same.",
    ),
    Reason.EXHAUSTED: (
        "The last of its tries failed.",
        "Read the error and those of earlier tries (`jobyard attempts ID`); mend the cause.",
    ),
    Reason.TIMEOUT: (
        "The last try ran longer than `timeoutSeconds`.",
        "Give it more time, or less to do in one job.",
    ),
    Reason.CRASHED: (
        "Its worker process died of it, three times.",
        "Look for memory and native code; the worker's log has the signal.",
    ),
    Reason.CANCELLED: ("Somebody cancelled it.", "Nothing is broken."),
    Reason.EXPIRED: (
        "It did not start before it was to expire.",
        "Start more workers, or give it more time.",
    ),
    Reason.DEPENDENCY_FAILED: ("A job that it waits for has failed.", "Mend that job first."),
}


def problems() -> str:
    """Every code of a problem, in the order of its status."""
    kinds = {kind.code: kind for kind in KINDS.values()}
    _must_be_told(kinds, ADVICE, "ADVICE")
    return "\n\n".join(map(_problem, sorted(kinds.values(), key=lambda kind: kind.status)))


def _problem(kind: Kind) -> str:
    more = ["It carries `Retry-After`."] if kind.retry_after else []
    more += ["The connection ends with it."] if kind.closes else []
    return "\n\n".join(
        [f"### `{kind.code}`", " ".join([f"**{kind.status}.** {kind.title}.", *more]), ADVICE[kind.code]]
    )


def reasons() -> str:
    """Every reason for which a job is failed."""
    _must_be_told(Reason, REASONS, "REASONS")
    rows = [
        (
            f"`{reason}`",
            REASONS[reason][0],
            "yes" if reason in DEAD_LETTER_REASONS else "no",
            REASONS[reason][1],
        )
        for reason in Reason
    ]
    return table(("reason", "what happened", "dead letter", "what to do"), rows)


def _must_be_told(there: Iterable[str], told: Iterable[str], where: str) -> None:
    if wrong := {*there} ^ {*told}:
        raise SystemExit(f"scripts/reference/errors.py: {where} and the code differ in {sorted(wrong)}")
