"""`jobyard cancel` and `jobyard retry`: what people ask of one job that exists."""

from __future__ import annotations

import msgspec

from jobyard.cli.connection import connect
from jobyard.cli.get import show
from jobyard.cli.options import JobId, Json, checking_id
from jobyard.cli.terminal import complain


class _Asked(msgspec.Struct, rename="camel"):
    status: str
    cancel_requested: bool = False


def cancel(job_id: JobId, as_json: Json = False) -> None:
    """End a job that waits; ask the handler of one that runs to end."""
    with connect(retry_seconds=0) as client, checking_id():
        body = client.cancel_json(job_id)
        show(client, body, as_json=as_json)
    job = msgspec.json.decode(body, type=_Asked)
    if job.status == "processing" and job.cancel_requested:
        complain(f"it runs and was asked to end; what becomes of it: jobyard watch {job_id}")


def retry(job_id: JobId, as_json: Json = False) -> None:
    """Run a failed job again, with all its tries."""
    with connect(retry_seconds=0) as client, checking_id():
        body = client.retry_json(job_id)
        show(client, body, as_json=as_json)
