"""`assert_created` and its kin: which jobs they mean, and what they say."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import msgspec
import pytest

from jobyard.testing import Yard


@pytest.fixture(autouse=True)
def _two_jobs(jobyard: Yard) -> None:
    jobyard.create("email", {"to": "bob@example.com", "data": {"id": 1, "of": 2}}, queue="mails", tags=["a"])
    jobyard.create("greet", {"name": "Ada"}, priority=9, metadata={"shop": "x", "lang": "de"})


class Greeting(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("type", "wanted"),
    [
        ("email", {}),
        ("email", {"payload": {"to": "bob@example.com"}}),
        ("email", {"payload": {"data": {"of": 2}}}),
        ("email", {"payload": {"to": ANY}}),
        ("email", {"queue": "mails", "tags": ["a"], "status": "pending", "count": 1}),
        ("greet", {"payload": Greeting("Ada")}),
        ("greet", {"priority": 9, "metadata": {"lang": "de"}}),
        (None, {"payload": {"name": "Ada"}}),
        ("none", {"count": 0}),
    ],
)
def test_what_holds_is_found(jobyard: Yard, type: str | None, wanted: dict[str, Any]) -> None:
    found = jobyard.assert_created(type, **wanted)
    assert [job.type for job in found] == ([] if type == "none" else [type or "greet"])


@pytest.mark.parametrize(
    ("type", "wanted", "says"),
    [
        ("emial", {}, "type is 'email', not 'emial'"),
        (
            "email",
            {"payload": {"to": "ada@example.com"}},
            "payload.to is 'bob@example.com', not 'ada@example.com'",
        ),
        ("email", {"payload": {"data": {"of": 3}}}, "payload.data.of is 2, not 3"),
        ("email", {"payload": {"cc": "x"}}, "payload has no 'cc'"),
        (
            "email",
            {"payload": []},
            "payload is {'to': 'bob@example.com', 'data': {'id': 1, 'of': 2}}, not []",
        ),
        ("email", {"queue": "default"}, "queue is 'mails', not 'default'"),
        ("email", {"tags": ["a", "b"]}, "tags have no 'b'"),
        ("greet", {"metadata": {"lang": "en"}}, "metadata.lang is 'de', not 'en'"),
        ("greet", {"tags": ["a"]}, "tags have no 'a'"),
        ("greet", {"status": "completed"}, "status is 'pending', not 'completed'"),
    ],
)
def test_what_does_not_hold_is_told_with_the_nearest_miss(
    jobyard: Yard, type: str, wanted: dict[str, Any], says: str
) -> None:
    with pytest.raises(AssertionError) as failed:
        jobyard.assert_created(type, **wanted)
    assert f"  {says}" in str(failed.value).splitlines()
    jobyard.assert_not_created(type, **wanted)


def test_a_miss_lists_what_was_created_instead(jobyard: Yard) -> None:
    with pytest.raises(AssertionError) as failed:
        jobyard.assert_created("greet", {"name": "Bob"}, queue="default")
    nearest = jobyard.jobs("greet")[0].id
    assert str(failed.value).splitlines() == [
        "No 'greet' job with payload {'name': 'Bob'}, queue 'default' was created.",
        "Created instead (2):",
        "  email {'to': 'bob@example.com', 'data': {'id': 1, 'of': 2}} in queue mails (pending)",
        "  greet {'name': 'Ada'} (pending)",
        f"The nearest is greet {nearest} (pending), but:",
        "  payload.name is 'Ada', not 'Bob'",
    ]


def test_another_count_lists_those_that_were_found(jobyard: Yard) -> None:
    with pytest.raises(AssertionError) as failed:
        jobyard.assert_created("greet", count=2)
    assert str(failed.value).splitlines() == [
        "'greet' job: 1 created, not 2.",
        "Created (1):",
        "  greet {'name': 'Ada'} (pending)",
    ]


def test_what_was_not_to_be_created_is_listed(jobyard: Yard) -> None:
    with pytest.raises(AssertionError) as failed:
        jobyard.assert_not_created("greet", {"name": "Ada"})
    assert str(failed.value).splitlines() == [
        "No 'greet' job with payload {'name': 'Ada'} was expected.",
        "Created (1):",
        "  greet {'name': 'Ada'} (pending)",
    ]


def test_where_nothing_was_created_a_miss_says_so(jobyard: Yard) -> None:
    jobyard.reset()
    with pytest.raises(AssertionError, match=r"^No job was created\.\nNo job was created at all\.$"):
        jobyard.assert_created()


def test_a_long_list_and_a_long_value_are_cut(jobyard: Yard) -> None:
    jobyard.client.create_many({"type": "t", "payload": {"text": "x" * 1000}} for _ in range(30))
    with pytest.raises(AssertionError) as failed:
        jobyard.assert_created("none")
    lines = str(failed.value).splitlines()
    assert sum(line.startswith("  t {'text': ") for line in lines) == 18
    assert "  and 12 more" in lines
    assert max(map(len, lines)) < 250


def test_a_failed_assertion_shows_the_line_of_the_test_alone(jobyard: Yard) -> None:
    for check in (lambda: jobyard.assert_created("none"), lambda: jobyard.assert_not_created("greet")):
        with pytest.raises(AssertionError) as failed:
            check()
        shown = [frame.name for frame in failed.traceback if not frame.ishidden(failed)]
        assert shown[-1] == "<lambda>"


def test_a_fact_that_no_job_has_is_told_with_those_there_are(jobyard: Yard) -> None:
    with pytest.raises(TypeError, match=r"not told apart by colour; by queue, priority, .* they are"):
        jobyard.assert_created("greet", colour="red")  # type: ignore[call-arg] - the fault that is tested


def test_jobs_are_given_oldest_first_and_one_by_its_id(jobyard: Yard) -> None:
    both = jobyard.jobs()
    assert [job.type for job in both] == ["email", "greet"]
    assert jobyard.job(both[0].id) == jobyard.job(both[0]) == both[0]
    assert jobyard.jobs(queue="mails") == [both[0]]


def test_an_id_that_no_job_has_is_told(jobyard: Yard) -> None:
    unknown = uuid4()
    for id in (unknown, "none"):
        with pytest.raises(LookupError, match=f"there is no job {id}"):
            jobyard.job(id)
