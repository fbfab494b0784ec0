"""No key, password or secret of a job in anything that the processes say (F37)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

import pytest

from jobyard.config import Settings
from processes.program import free_port
from telemetry.yard_processes import KEY, closed_to_all, yard_processes
from worker.yard import Yard, until

DATABASE_PASSWORD = "pass/of@the:database"
SMTP_PASSWORD = "of-the-mail-server"
WRONG_KEY = "a-key-from-elsewhere-77"
OF_JOBS = (
    "in-the-payload-1",
    "in-the-result-2",
    "in-the-metadata-3",
    "in-a-header-4",
    "in-a-tag-5",
    "in-a-path-6",
)
PLANTED = (KEY, DATABASE_PASSWORD, quote(DATABASE_PASSWORD, safe=""), SMTP_PASSWORD, WRONG_KEY, *OF_JOBS)


@pytest.mark.parametrize("style", ["json", "console"])
async def test_nothing_that_is_secret_is_logged_or_shown(
    server: Callable[[str], str], yard: Yard, tmp_path: Path, style: str
) -> None:
    url = yard.url.replace("@", f":{quote(DATABASE_PASSWORD, safe='')}@", 1)
    settings = {
        "JOBYARD_LOG": style,
        "JOBYARD_LOG_LEVEL": "debug",
        "JOBYARD_METRICS_MAX_TYPES": "1",
        "JOBYARD_SMTP_URL": f"smtp://user:{SMTP_PASSWORD}@127.0.0.1:{free_port()}",
    }
    async with yard_processes(tmp_path, url, **settings) as processes:
        client = processes.client

        async def create(type: str, payload: object, **fields: object) -> str:
            body = {"type": type, "payload": payload, "maxAttempts": 1} | fields
            answer = await client.post("/api/jobs", json=body, headers={"X-Custom": OF_JOBS[3]})
            assert answer.status_code == 202, answer.text
            return answer.json()["id"]

        tell = {"metadata": {"token": OF_JOBS[2]}, "tags": [OF_JOBS[4]]}
        jobs = [
            await create("tell-all", f"fail with {OF_JOBS[0]}", **tell),
            await create("tell-all", OF_JOBS[1], **tell),
            await create("tell-all", {"not": OF_JOBS[0]}),
            await create("log-all", None),
            await create("email", {"to": "user@example.com", "subject": OF_JOBS[0]}),
        ]
        for number in range(3):
            refused = await client.get("/api/jobs", headers={"Authorization": f"Bearer {WRONG_KEY}{number}"})
            assert refused.status_code == 401
        await client.post(
            "/api/jobs",
            content=b'{"payload": "' + OF_JOBS[0].encode(),
            headers={"Content-Type": "application/json"},
        )
        await client.get(f"/{OF_JOBS[5]}?token={OF_JOBS[5]}")
        for job in jobs:
            await client.get(f"/api/jobs/{job}", headers={"Prefer": "wait=30"})
        async with closed_to_all(server, yard):
            assert (await client.get("/api/jobs")).status_code == 503
            await until(lambda: "loop.failed" in processes.said, "the loops are in trouble", 30)
        for role in processes.ports:
            await until(lambda role=role: processes.is_ready(role), f"{role} is ready again", 30)
        shown = [(await processes.metrics(role)).text for role in processes.ports]
        assert all("jobyard_ready 1.0" in text for text in shown)
        others = 'jobyard_jobs_created_total{queue="other",type="other"} 2.0'
        assert others in shown[0], "beyond the one type that has series of its own"
        refused = [
            await processes.metrics(role, Authorization=f"Bearer {WRONG_KEY}") for role in processes.ports
        ]
        assert [answer.status_code for answer in refused] == [401, 401, 401]
    said = processes.said
    assert "the key is ***" in said, "what a handler logs itself"
    for event in (
        "job.created",
        "attempt.started",
        "attempt.failed",
        "attempt.completed",
        "request.answered",
    ):
        assert event in said
    found = [secret for secret in PLANTED for text in (said, *shown) if secret in text]
    assert found == []


def test_the_settings_name_every_secret_in_them_as_written_and_as_meant() -> None:
    settings = Settings.read(
        {
            "JOBYARD_KEY": "k" * 10,
            "DATABASE_URL": "postgresql://me:a%2Fb%40c@host/db?sslpassword=of-the-file",
            "DATABASE_DIRECT_URL": "postgresql://me:not@escaped@at@all@host/db",
            "JOBYARD_SMTP_URL": "smtp://me:mail@host",
        }
    )
    assert settings.secrets == {"k" * 10, "a%2Fb%40c", "a/b@c", "of-the-file", "not@escaped@at@all", "mail"}
    assert Settings().secrets == frozenset()


def test_no_setting_that_holds_a_secret_is_forgotten() -> None:
    secret = {field.metadata["variable"] for field in fields(Settings) if field.metadata["secret"]}
    likely = {
        field.metadata["variable"] for field in fields(Settings)
        if re.search("KEY$|PASSWORD|SECRET|TOKEN|(DATABASE|DIRECT|SMTP)_URL|BUS$", field.metadata["variable"])
    }  # fmt: skip
    assert secret == likely
