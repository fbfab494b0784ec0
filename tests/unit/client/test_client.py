from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from contract_server import Cut, Yard, busy, problem
from starlette.responses import HTMLResponse

import jobyard.client
from jobyard.client import ApiError, Client, Created, NotJobyard, Refused, ServerUnreachable

CREATE = "/api/jobs"
BULK = "/api/jobs/bulk"


def keyed(count: int) -> Iterator[dict[str, Any]]:
    return ({"type": "email", "payload": {"n": n}, "idempotencyKey": f"key-{n}"} for n in range(count))


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where no server listens, kept by us so that none can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_job_is_created_with_the_options_under_their_json_names(yard: Yard, client: Client) -> None:
    created = client.create(
        "email",
        {"to": "user@example.com"},
        run_at=datetime(2030, 1, 1, tzinfo=UTC),
        max_attempts=3,
        backoff={"base_seconds": 1, "cap_seconds": 9},
        metadata={"order_id": "17"},
        queue=None,
    )
    assert created == Created(id=created.id, status="pending", replayed=False)
    job = yard.jobs[created.id]
    assert job["payload"] == {"to": "user@example.com"}
    assert job["runAt"] == "2030-01-01T00:00:00Z"
    assert job["maxAttempts"] == 3
    assert job["backoff"] == {"baseSeconds": 1, "capSeconds": 9}
    assert job["metadata"] == {"order_id": "17"}
    assert b"queue" not in yard.seen[0].body


def test_a_replayed_create_says_so_and_names_the_first_job(client: Client) -> None:
    first = client.create("email", {}, idempotency_key="order-17")
    again = client.create("email", {}, idempotency_key="order-17")
    assert (again.id, first.replayed, again.replayed) == (first.id, False, True)


def test_a_refusal_carries_everything_the_problem_says(yard: Yard, client: Client) -> None:
    yard.instead.append(problem(422, "validation_failed", ("/payload/to", "is not an address")))
    with pytest.raises(ApiError) as raised:
        client.create("email", {"to": "?"})
    refusal = raised.value
    assert (refusal.status, refusal.code, refusal.title) == (422, "validation_failed", "Validation Failed")
    assert (refusal.detail, refusal.request_id) == ("It is validation_failed.", "req-1")
    assert [(fault.pointer, fault.detail) for fault in refusal.errors] == [
        ("/payload/to", "is not an address")
    ]
    assert "/payload/to: is not an address" in str(refusal)
    assert "req-1" in str(refusal)


@pytest.mark.parametrize("payload", [float("nan"), {"a": [float("inf")]}, [None, {"b": (float("-inf"),)}]])
def test_a_number_that_json_cannot_say_is_refused_before_anything_is_sent(
    yard: Yard, client: Client, payload: Any
) -> None:
    with pytest.raises(ValueError, match="NaN and Infinity"):
        client.create("email", payload)
    assert yard.seen == []


def test_a_null_in_the_payload_is_no_reason_to_refuse_it(yard: Yard, client: Client) -> None:
    created = client.create("email", {"a": None, "b": 1.5})
    assert yard.jobs[created.id]["payload"] == {"a": None, "b": 1.5}


def test_a_keyed_create_is_sent_again_when_the_server_asks_for_patience(yard: Yard, client: Client) -> None:
    yard.instead.extend([busy(), busy(retry_after=None)])
    created = client.create("email", {}, idempotency_key="k")
    assert [*yard.jobs] == [created.id]
    assert len(yard.requests(CREATE)) == 3


def test_a_create_without_a_key_is_never_sent_twice(yard: Yard, client: Client) -> None:
    yard.instead.append(busy())
    with pytest.raises(ApiError, match="overloaded"):
        client.create("email", {})
    assert len(yard.requests(CREATE)) == 1


def test_a_keyed_create_whose_answer_was_lost_still_makes_one_job(yard: Yard, client: Client) -> None:
    yard.after.append(Cut())
    created = client.create("email", {}, idempotency_key="k")
    assert created.replayed
    assert [*yard.jobs] == [created.id]


def test_a_lost_answer_without_a_key_is_told_as_in_doubt(yard: Yard, client: Client) -> None:
    yard.after.append(Cut())
    with pytest.raises(ServerUnreachable) as raised:
        client.create("email", {})
    assert raised.value.in_doubt
    assert len(yard.requests(CREATE)) == 1


def test_the_pause_is_at_least_what_the_server_asked_for(yard: Yard, client: Client) -> None:
    yard.instead.append(busy(retry_after="1"))
    client.create("email", {}, idempotency_key="k")
    first, second = yard.requests(CREATE)
    assert second.at - first.at >= 1


def test_patience_ends(yard: Yard) -> None:
    yard.always = busy()
    heard: list[float] = []
    with (
        Client(yard.url, retry_seconds=0.5, on_retry=lambda _, pause: heard.append(pause)) as client,
        pytest.raises(ApiError, match="overloaded"),
    ):
        client.create("email", {}, idempotency_key="k")
    assert len(heard) >= 1
    assert len(yard.requests(CREATE)) == len(heard) + 1


def test_a_wait_beyond_the_patience_is_not_begun(yard: Yard, client: Client) -> None:
    yard.instead.append(busy(retry_after="3600"))
    with pytest.raises(ApiError) as raised:
        client.create("email", {}, idempotency_key="k")
    assert raised.value.retry_after == 3600
    assert len(yard.requests(CREATE)) == 1


def test_a_refusal_that_will_not_pass_is_not_repeated(yard: Yard, client: Client) -> None:
    yard.instead.append(problem(401, "unauthenticated"))
    with pytest.raises(ApiError, match="unauthenticated"):
        client.create("email", {}, idempotency_key="k")
    assert len(yard.requests(CREATE)) == 1


def test_an_absent_server_is_named_with_what_to_do(nobody: str) -> None:
    address = nobody.replace("//", "//user:hunter2@")
    with Client(address, retry_seconds=0) as client, pytest.raises(ServerUnreachable) as raised:
        client.create("email", {})
    said = str(raised.value)
    assert nobody in said
    assert "make run" in said
    assert "JOBYARD_URL" in said
    assert "hunter2" not in said
    assert not raised.value.in_doubt


def test_a_read_is_repeated_while_the_server_comes_back(yard: Yard, client: Client) -> None:
    job_id = yard.add({"type": "email", "payload": 1})
    yard.instead.extend([busy(), Cut()])
    assert client.get(job_id).status == "pending"


def test_a_ping_to_nobody_does_not_wait(nobody: str) -> None:
    began = time.monotonic()
    with Client(nobody, retry_seconds=60) as client, pytest.raises(ServerUnreachable):
        client.ping()
    assert time.monotonic() - began < 30


def test_a_bulk_is_cut_at_a_thousand_jobs_and_answered_in_order(yard: Yard, client: Client) -> None:
    outcomes = client.create_many(keyed(2_500))
    assert [len(request.body.split(b'"type"')) - 1 for request in yard.requests(BULK)] == [1_000, 1_000, 500]
    created = [outcome for outcome in outcomes if isinstance(outcome, Created)]
    assert [yard.jobs[job.id]["payload"]["n"] for job in created] == list(range(2_500))


def test_a_bulk_is_cut_at_sixteen_mebibytes(yard: Yard, client: Client) -> None:
    mails = ({"type": "email", "payload": "x" * (6 << 20)} for _ in range(4))
    assert all(isinstance(outcome, Created) for outcome in client.create_many(mails))
    sizes = [len(request.body) for request in yard.requests(BULK)]
    assert len(sizes) == 2
    assert max(sizes) <= 16 << 20


def test_jobs_are_taken_from_the_stream_only_as_they_are_sent(client: Client) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[dict[str, Any]]:
        for n, job in enumerate(keyed(5_000)):
            taken.append(n)
            yield job

    next(client.create_each(jobs()))
    assert len(taken) <= 1_001


def test_a_refused_item_does_not_harm_its_neighbours(client: Client) -> None:
    outcomes = client.create_many([{"type": "a"}, {"nope": 1}, {"type": "b"}])
    assert [type(outcome) for outcome in outcomes] == [Created, Refused, Created]
    refused = outcomes[1]
    assert isinstance(refused, Refused)
    assert refused.problem.code == "validation_failed"
    assert [fault.pointer for fault in refused.problem.errors] == ["/nope", "/type"]


def test_the_item_that_has_a_whole_request_refused_is_found_and_the_others_created(
    yard: Yard, client: Client
) -> None:
    yard.max_bulk_bytes = 2_000
    jobs: list[dict[str, Any]] = [*keyed(60)]
    jobs[17]["payload"] = "x" * 3_000
    outcomes = client.create_many(jobs)
    refused = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
    assert refused == [17]
    assert len(yard.jobs) == 59


def test_a_bulk_of_keyed_jobs_survives_trouble_without_doubles(yard: Yard, client: Client) -> None:
    yard.instead.append(busy())
    yard.after.append(Cut())
    assert len(client.create_many(keyed(10))) == 10
    assert len(yard.jobs) == 10
    assert len(yard.requests(BULK)) == 3


def test_one_job_without_a_key_forbids_to_repeat_its_bulk(yard: Yard, client: Client) -> None:
    yard.instead.append(busy())
    with pytest.raises(ApiError, match="overloaded"):
        client.create_many([*keyed(3), {"type": "email", "payload": {}}])
    assert len(yard.requests(BULK)) == 1


def test_a_job_is_read_by_attribute_and_by_json_name(yard: Yard, client: Client) -> None:
    job = client.get(yard.add({"type": "email", "payload": {"a": 1}, "somethingNew": True}))
    assert job.created_at == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert job["createdAt"] is job.created_at
    assert dict(job)["payload"] == {"a": 1}
    with pytest.raises(KeyError):
        job["created_at"]


def test_a_wait_longer_than_the_server_allows_is_asked_again(yard: Yard, client: Client) -> None:
    yard.unfinished_waits = 1
    job_id = yard.add({"type": "email", "payload": {}})
    assert client.get(job_id, wait=90).status == "completed"
    assert [request.headers["prefer"] for request in yard.seen] == ["wait=60", "wait=60"]


def test_a_wait_that_ends_gives_the_job_as_it_is(yard: Yard, client: Client) -> None:
    yard.unfinished_waits = 100
    assert client.get(yard.add({"type": "email", "payload": {}}), wait=0.3).status == "pending"


def test_an_unknown_job_is_refused_as_not_found(client: Client) -> None:
    with pytest.raises(ApiError) as raised:
        client.get("0199aaaa-0000-7000-8000-000000000000")
    assert (raised.value.status, raised.value.code) == (404, "not_found")


def test_a_job_stands_for_its_id(yard: Yard, client: Client) -> None:
    job = client.get(Created(id=yard.add({"type": "t", "status": "pending"}), status="pending"))
    failed = client.cancel(job)
    for each in (client.watch, client.attempts, client.events, client.log):
        [*each(failed)]
    assert client.retry(failed).id == job.id
    assert {asked.path.split("/")[3] for asked in yard.seen} == {job.id}


def test_an_id_cannot_lead_to_another_path(yard: Yard, client: Client) -> None:
    with pytest.raises(ApiError, match="not_found"):
        client.get("..x?a#b")
    assert yard.seen[0].path == "/api/jobs/..x%3Fa%23b"
    for none in ("", ".", "..", "x/attempts"):
        with pytest.raises(ValueError, match="no id"):
            client.get(none)


def test_events_and_attempts_are_read_over_all_pages(yard: Yard, client: Client) -> None:
    event = {"type": "job.started", "time": "2026-11-20T10:00:00Z", "jobId": "j", "data": {"a": 1}}
    attempt = {"run": 1, "attempt": 1, "outcome": "failed", "error": {"type": "E", "message": "m"}}
    yard.rows = {"events": [{**event, "id": f"{n}.1"} for n in range(5)], "attempts": [attempt] * 3}
    assert [event.id for event in client.events("j")] == ["0.1", "1.1", "2.1", "3.1", "4.1"]
    assert [(it.outcome, it.error["message"]) for it in client.attempts("j")] == [("failed", "m")] * 3


def test_filters_of_a_list_become_its_query(yard: Yard, client: Client) -> None:
    for n in range(6):
        yard.add({"type": "email", "payload": "left out", "queue": str(n), "status": "failed"})
    page = client.list(
        status="failed",
        metadata={"order": "1&2"},
        created_after=datetime(2026, 1, 1, tzinfo=UTC),
        page_size=5,
    )
    assert yard.seen[0].query == (
        "status=failed&createdAfter=2026-01-01T00%3A00%3A00%2B00%3A00&pageSize=5&metadata.order=1%262"
    )
    assert [(job.queue, job.payload) for job in page.items] == [(str(n), None) for n in (5, 4, 3, 2, 1)]
    assert page.next_page_token is not None


@pytest.mark.parametrize("status", [200, 301, 404])
def test_another_program_at_the_address_is_recognised(yard: Yard, client: Client, status: int) -> None:
    yard.instead.append(HTMLResponse("<h1>Welcome</h1>", status))
    with pytest.raises(NotJobyard, match="JOBYARD_URL"):
        client.get("0199aaaa-0000-7000-8000-000000000000")


def test_the_error_page_of_a_gateway_counts_as_the_server_being_away(yard: Yard, client: Client) -> None:
    yard.instead.append(HTMLResponse("<h1>Bad Gateway</h1>", 502))
    assert client.create("email", {}, idempotency_key="k").status == "pending"
    yard.instead.append(HTMLResponse("<h1>Bad Gateway</h1>", 502))
    with pytest.raises(ApiError, match="http_502"):
        client.create("email", {})


def test_answers_that_do_not_match_the_jobs_are_not_believed(yard: Yard, client: Client) -> None:
    client.create_many([*keyed(2)])
    yard.instead.append(HTMLResponse('{"items": []}', 200))
    with pytest.raises(NotJobyard, match="0 answers to 2 jobs"):
        client.create_many([*keyed(2)])


def test_the_key_goes_with_every_request_and_wins_over_a_password_in_the_address(yard: Yard) -> None:
    with Client(yard.url.replace("//", "//user:password@"), "s3cret") as client:
        client.create("email", {})
    assert yard.seen[0].headers["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("key", ["s3cret\n", "s3crét"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as raised:
        Client("http://localhost:3000", key)
    assert "s3cr" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "http://u:hunter2@[::1", "http://x:99999", "http://x:0", "http://x\x1b"]
)
def test_an_address_that_cannot_be_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="http://localhost:3000") as raised:
        Client(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("key", ["", "é", "a\nb", "x" * 256])
def test_an_idempotency_key_that_cannot_be_is_refused_before_anything_is_sent(
    yard: Yard, client: Client, key: str
) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        client.create("email", {}, idempotency_key=key)
    assert yard.seen == []


def test_the_package_names_what_it_offers() -> None:
    public = {
        name
        for name, value in vars(jobyard.client).items()
        if getattr(value, "__module__", "").startswith("jobyard")
    }
    assert public == set(jobyard.client.__all__)


def test_a_job_is_cancelled_and_run_again(yard: Yard, client: Client) -> None:
    waits, runs = yard.add({"type": "t"}), yard.add({"type": "t", "status": "processing"})
    assert client.cancel(waits).status == "failed"
    asked = client.cancel(runs)
    assert (asked.status, asked.cancel_requested) == ("processing", True)
    again = client.retry(waits)
    assert (again.status, again.run) == ("pending", 2)
    with pytest.raises(ApiError, match="wrong_state"):
        client.retry(waits)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_verb_whose_answer_was_lost_is_not_sent_again(yard: Yard, client: Client, verb: str) -> None:
    yard.after.append(Cut())
    job_id = yard.add({"type": "t", "status": {"cancel": "pending", "retry": "failed"}[verb]})
    with pytest.raises(ServerUnreachable):
        getattr(client, verb)(job_id)
    assert len(yard.requests(f"/api/jobs/{job_id}/{verb}")) == 1
