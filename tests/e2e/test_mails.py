"""5,000 real-looking mails from a file, over real SMTP, with the worker killed half-way."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import httpx
from server_process import Running, eventually, running_dev

from processes.program import free_port

MAILS = 5_000
SUBJECTS = (
    "Grüße aus Köln",
    "注文の確認",
    "Ваш заказ",
    "مرحبا بك",
    "Rappel: échéance",
    "🎉 You're in",
    "Weekly report",
)


@dataclass(frozen=True, slots=True)
class Mail:
    to: str
    subject: str
    attachment: bytes | None

    @property
    def line(self) -> str:
        payload: dict[str, object] = {
            "to": self.to,
            "subject": self.subject,
            "text": f"Hello, this is for {self.to}.",
        }
        if self.attachment:
            content = base64.b64encode(self.attachment).decode()
            payload["attachments"] = [
                {"filename": "Rechnung-ü.pdf", "contentType": "application/pdf", "content": content}
            ]
        return json.dumps({"type": "email", "payload": payload}, ensure_ascii=False)


def mails() -> list[Mail]:
    return [
        Mail(
            to=f"customer{number}@example.com",
            subject=f"{SUBJECTS[number % len(SUBJECTS)]} #{number}",
            attachment=hashlib.sha256(str(number).encode()).digest() * 64 if number % 10 == 0 else None,
        )
        for number in range(MAILS)
    ]


@contextlib.contextmanager
def smtp_server(notes: Path) -> Generator[str]:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("smtp_process.py")), str(port), str(notes)]
    )
    try:
        yield f"smtp://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def arrived(notes: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def jobs_with_status(running: Running, status: str) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        query = {"status": status, "pageSize": "1000"} | ({"pageToken": token} if token else {})
        page = httpx.get(f"{running.url}/api/jobs", params=query, trust_env=False, timeout=30).json()
        found += [item["id"] for item in page["items"]]
        token = page["nextPageToken"]
        if token is None:
            return found


def summary(notes: list[dict[str, object]]) -> str:
    """What arrived, naming the mails that arrived twice."""
    times = Counter(str(note["messageId"]) for note in notes)
    twice = sorted(name for name, count in times.items() if count > 1)
    return "\n".join([f"{len(notes)} mails arrived, {len(times)} distinct; twice: {len(twice)}", *twice])


def test_five_thousand_mails_arrive_though_the_worker_is_killed_half_way(tmp_path: Path) -> None:
    file, notes = tmp_path / "mails.jsonl", tmp_path / "notes.jsonl"
    sent = mails()
    file.write_text("\n".join(mail.line for mail in sent) + "\n")
    with smtp_server(notes) as smtp, running_dev(JOBYARD_SMTP_URL=smtp, JOBYARD_LEASE_SECONDS="2") as running:
        created = running.cli("create", "--file", str(file), "--json")
        assert created.returncode == 0, created.stderr
        ids = [line["id"] for line in map(json.loads, created.stdout.splitlines()) if "id" in line]
        assert len(set(ids)) == MAILS
        eventually(lambda: len(arrived(notes)) > MAILS // 3, "a third of the mails arrived", 60)
        victim = running.pid_of("worker")
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        assert len(arrived(notes)) < MAILS, "the worker was done before it could be killed"
        eventually(lambda: running.pid_of("worker") not in (None, victim), "another worker was started")
        eventually(
            lambda: len({note["messageId"] for note in arrived(notes)}) == MAILS, "every mail arrived", 120
        )
        eventually(lambda: len(jobs_with_status(running, "completed")) == MAILS, "every job is completed", 60)

        got = arrived(notes)
        sys.stdout.write(summary(got) + "\n")
        assert {str(note["messageId"]).strip("<>").partition("@")[0] for note in got} == set(ids)
        by_address = {note["to"][0]: note for note in got}  # type: ignore[index] - notes hold lists of addresses
        for mail in sent:
            note = by_address[mail.to]
            assert note["subject"] == mail.subject
            expected = [hashlib.sha256(mail.attachment).hexdigest()] if mail.attachment else []
            assert note["attachments"] == expected
        _only_mails_in_flight_arrived_twice(running, got)


def _only_mails_in_flight_arrived_twice(running: Running, got: list[dict[str, object]]) -> None:
    times = Counter(str(note["messageId"]) for note in got)
    for message_id, count in times.items():
        if count == 1:
            continue
        job = message_id.strip("<>").partition("@")[0]
        attempts = httpx.get(f"{running.url}/api/jobs/{job}/attempts", trust_env=False).json()["items"]
        outcomes = [attempt["outcome"] for attempt in attempts]
        assert count == 2
        assert "orphan" in outcomes, (
            f"{message_id} arrived twice and was not in flight at the kill: {outcomes}"
        )


def test_the_summary_names_mails_that_arrived_twice() -> None:
    told = summary([{"messageId": "<a@x>"}, {"messageId": "<b@x>"}, {"messageId": "<a@x>"}])
    assert told == "3 mails arrived, 2 distinct; twice: 1\n<a@x>"
