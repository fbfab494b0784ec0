"""The Python client of a Jobyard server.

from jobyard.client import Client

with Client("http://localhost:3000") as yard:
    job = yard.create("email", {"to": "user@example.com"}, idempotency_key="welcome-17")
    print(yard.get(job.id, wait=10).status)
"""

from jobyard.client.errors import ApiError, ClientError, NotJobyard, ServerUnreachable
from jobyard.client.http import Client
from jobyard.client.shapes import (
    Attempt,
    Backoff,
    Counts,
    Created,
    DeadLetterFilters,
    DeadLettersMeant,
    Dealt,
    Event,
    Fault,
    Job,
    JobFilters,
    JobOptions,
    LogLine,
    Pace,
    Page,
    Problem,
    Queue,
    QueueType,
    Record,
    Refused,
    Stats,
    Worker,
    WorkerTotals,
)
from jobyard.client.stream import Stream

__all__ = [
    "ApiError",
    "Attempt",
    "Backoff",
    "Client",
    "ClientError",
    "Counts",
    "Created",
    "DeadLetterFilters",
    "DeadLettersMeant",
    "Dealt",
    "Event",
    "Fault",
    "Job",
    "JobFilters",
    "JobOptions",
    "LogLine",
    "NotJobyard",
    "Pace",
    "Page",
    "Problem",
    "Queue",
    "QueueType",
    "Record",
    "Refused",
    "ServerUnreachable",
    "Stats",
    "Stream",
    "Worker",
    "WorkerTotals",
]
