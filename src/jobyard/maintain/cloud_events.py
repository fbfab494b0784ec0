"""A fact of the log as a message for other services: a CloudEvent 1.0 in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from jobyard.domain.events import AttemptOutcome, AttemptRecord, Event, EventKey, EventType, Phase
from jobyard.domain.times import time_text
from jobyard.ports import Message
from jobyard.store.log_reader import Fact

CONTENT_TYPE = "application/cloudevents+json"
LARGEST_RESULT = 64 * 1024
"""Of bytes. A larger one is not in the event: whoever wants it asks the API."""

LEAVES_OUT = ("result", "error", "metadata")
"""What an event goes without, in this order, where the bus would not take it otherwise; `<name>Omitted` says so."""

PHASES = {
    EventType.CREATED: Phase.START,
    EventType.STARTED: Phase.START,
    EventType.CANCEL_REQUESTED: Phase.CANCEL_REQUEST,
    EventType.REDRIVEN: Phase.REDRIVE,
}

_encode = msgspec.json.Encoder().encode


def cloud_event(fact: Fact, known: asyncpg.Record, source: str, largest: int) -> Message:
    """`known`: the columns of log_facts.sql; `largest`: bytes of a body that the bus takes."""
    type = EventType(f"job.{fact.kind}")
    event = Event(
        EventKey(fact.lease, PHASES.get(type, Phase.END)), type, fact.at, _record(fact, type, known)
    )
    job = str(fact.job)
    data = {
        "jobId": job,
        "type": known["type"],
        "queue": known["queue"],
        **_said(event, fact),
        "tags": _raw(known["tags"]),
        "metadata": _raw(known["metadata"]),
        "result": _raw(known["result"]) if type is EventType.COMPLETED else None,
        "resultOmitted": True if type is EventType.COMPLETED and known["result_omitted"] else None,
    }
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{job}/{event.id}",
        "source": source,
        "type": type.value,
        "subject": job,
        "time": time_text(fact.at),
        "datacontenttype": "application/json",
        "data": {name: value for name, value in data.items() if value is not None},
    }
    attributes = {"content-type": CONTENT_TYPE, "type": type.value}
    if known["type"] is not None:
        attributes["jobtype"] = known["type"]
    return Message(envelope["id"], _fitting(envelope, largest), job, attributes)


def _record(fact: Fact, type: EventType, known: asyncpg.Record) -> AttemptRecord | None:
    """None for the creation, and where the attempt is not on record any more."""
    if type is EventType.CREATED or known["outcome"] is None:
        return None
    return AttemptRecord(
        run=known["run"],
        attempt=known["attempt"],
        lease=fact.lease,
        worker=known["worker"],
        started_at=None,
        ended_at=None,
        retry_at=known["retry_at"],
        outcome=AttemptOutcome(known["outcome"]),
        reason=known["reason"],
        error=known["error"],
    )


def _said(event: Event, fact: Fact) -> Mapping[str, Any]:
    """As the API tells it; of an attempt that is deleted, what the log itself says."""
    if event.attempt is None and event.type is not EventType.CREATED:
        detail = "reason" if event.type is EventType.FAILED else "cause"
        worker = None if fact.worker is None else str(fact.worker)
        return {"attempt": fact.attempt or None, "worker": worker, detail: fact.detail}
    said = event.data
    return {
        "run": said.run,
        "attempt": said.attempt,
        "worker": None if said.worker is None else str(said.worker),
        "cause": said.cause,
        "reason": said.reason,
        "retryAt": None if said.retry_at is None else time_text(said.retry_at),
        "error": _raw(said.error),
    }


def _fitting(envelope: dict[str, Any], largest: int) -> bytes:
    body = _encode(envelope)
    for name in LEAVES_OUT:
        if len(body) <= largest:
            break
        if envelope["data"].pop(name, None) is not None:
            envelope["data"][f"{name}Omitted"] = True
            body = _encode(envelope)
    return body


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text)
