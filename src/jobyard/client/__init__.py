"""The Python client of a Jobyard server.

from jobyard.client import Client

with Client("http://localhost:3000") as yard:
    job = yard.create("email", {"to": "user@example.com"}, idempotency_key="welcome-17")
    print(yard.get(job.id, wait=10).status)
"""

from jobyard.client.errors import ApiError, ClientError, NotJobyard, ServerUnreachable
from jobyard.client.http import Client
from jobyard.client.shapes import (
    Backoff,
    Created,
    Event,
    Fault,
    Job,
    JobFilters,
    JobOptions,
    Page,
    Problem,
    Record,
    Refused,
)

__all__ = [
    "ApiError",
    "Backoff",
    "Client",
    "ClientError",
    "Created",
    "Event",
    "Fault",
    "Job",
    "JobFilters",
    "JobOptions",
    "NotJobyard",
    "Page",
    "Problem",
    "Record",
    "Refused",
    "ServerUnreachable",
]
