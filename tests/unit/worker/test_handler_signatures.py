from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

from jobyard.domain.lifecycle import Fail, Outcome, Succeeded
from jobyard.store.dispatch import Claimed
from jobyard.worker import attempt
from jobyard.worker.context import Context
from jobyard.worker.handlers import (
    Handler,
    HandlerError,
    Handlers,
    handler,
    read_signature,
    registered,
)
from jobyard.worker.link import Link
from worker.yard import claimed


class Order(msgspec.Struct):
    item: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclass
class Letter:
    to: str
    copies: int = 1


class Options(TypedDict):
    colour: str
    size: NotRequired[int]


class Invoice(pydantic.BaseModel):
    number: int
    lines: list[str] = []


def run(function: Callable[..., Any], payload: str = "{}", **columns: Any) -> Outcome:
    with ThreadPoolExecutor(1) as threads:
        signature = read_signature("t", function)
        return asyncio.run(_attempt(signature, claimed(payload, **columns), threads))


async def _attempt(signature: Handler, job: Claimed, threads: ThreadPoolExecutor) -> Outcome:
    def link() -> Link:
        return Link(job, None, lambda told: None, lambda: False, asyncio.run)

    return await attempt.run(signature, job, link, threads, 1 << 20)


def result_of(function: Callable[..., Any], payload: str = "{}", **columns: Any) -> Any:
    outcome = run(function, payload, **columns)
    assert isinstance(outcome, Succeeded), outcome
    return None if outcome.result is None else json.loads(outcome.result)


async def nothing_asked() -> str:
    return "done"


async def payload_alone(payload: Order) -> list[Any]:
    return [payload.item, payload.count]


async def payload_and_context(payload: Order, ctx: Context) -> list[Any]:
    return [payload.item, ctx.attempt]


async def context_first(ctx: Context, payload: Order) -> list[Any]:
    return [payload.item, ctx.attempt]


async def context_by_its_type(payload: Order, about: Context) -> list[Any]:
    return [payload.item, about.attempt]


async def context_by_its_name(payload, ctx):  # type: ignore[no-untyped-def] - a user's own may have no annotations
    return [payload["item"], ctx.attempt]


async def context_alone(ctx: Context) -> int:
    return ctx.attempt


async def context_by_keyword(payload: Order, *, ctx: Context) -> list[Any]:
    return [payload.item, ctx.attempt]


def in_a_thread(payload: Order, ctx: Context) -> list[Any]:
    return [payload.item, ctx.attempt]


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (nothing_asked, "done"),
        (payload_alone, ["pen", 1]),
        (payload_and_context, ["pen", 3]),
        (context_first, ["pen", 3]),
        (context_by_its_type, ["pen", 3]),
        (context_by_its_name, ["pen", 3]),
        (context_alone, 3),
        (context_by_keyword, ["pen", 3]),
        (in_a_thread, ["pen", 3]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_handler_is_given_what_its_signature_asks_for(function: Callable[..., Any], result: Any) -> None:
    assert result_of(function, '{"item":"pen"}', attempt=3) == result


def test_a_payload_is_read_as_its_annotation_says() -> None:
    def struct(payload: Order) -> str:
        return type(payload).__name__

    def data(payload: Letter) -> str:
        return f"{type(payload).__name__} {payload.copies}"

    def typed(payload: Options) -> str:
        return f"{type(payload).__name__} {payload['colour']}"

    def plain(payload: dict[str, int]) -> int:
        return payload["n"]

    def model(payload: Invoice) -> str:
        return f"{type(payload).__name__} {payload.number}"

    def untyped(payload) -> Any:  # type: ignore[no-untyped-def] - as above
        return payload

    assert result_of(struct, '{"item":"pen"}') == "Order"
    assert result_of(data, '{"to":"me","copies":2}') == "Letter 2"
    assert result_of(typed, '{"colour":"red"}') == "dict red"
    assert result_of(plain, '{"n":7}') == 7
    assert result_of(model, '{"number":5}') == "Invoice 5"
    assert result_of(untyped, '[1,{"a":null}]') == [1, {"a": None}]


def struct_payload(payload: Order) -> None: ...
def dataclass_payload(payload: Letter) -> None: ...
def typed_dict_payload(payload: Options) -> None: ...
def dict_payload(payload: dict[str, int]) -> None: ...
def pydantic_payload(payload: Invoice) -> None: ...


@pytest.mark.parametrize(
    ("function", "payload"),
    [
        (struct_payload, "{}"),
        (struct_payload, '{"item":"pen","count":0}'),
        (struct_payload, "null"),
        (dataclass_payload, '{"to":5}'),
        (typed_dict_payload, '{"size":1}'),
        (dict_payload, '{"n":"x"}'),
        (dict_payload, "[]"),
        (pydantic_payload, '{"number":"five"}'),
        (pydantic_payload, "[]"),
    ],
)
def test_a_payload_that_does_not_fit_fails_the_job_for_good(
    function: Callable[..., Any], payload: str
) -> None:
    outcome = run(function, payload)
    assert isinstance(outcome, Fail)
    assert outcome.type == "InvalidPayload"
    assert "the payload does not fit the handler of 't'" in outcome.message


def test_the_context_tells_of_the_attempt() -> None:
    def about(ctx: Context) -> list[Any]:
        return [
            str(ctx.job_id), ctx.type, ctx.queue, ctx.run, ctx.attempt, ctx.max_attempts, ctx.timeout_seconds,
            ctx.created_at.year, ctx.traceparent, ctx.tags, ctx.metadata,
        ]  # fmt: skip

    asked = claimed(
        run=2,
        attempt=3,
        max_attempts=9,
        timeout_seconds=1.5,
        queue="q",
        trace="00-1",
        tags='["a","b"]',
        metadata='{"k":"v"}',
    )
    with ThreadPoolExecutor(1) as threads:
        outcome = asyncio.run(_attempt(read_signature("t", about), asked, threads))
    assert isinstance(outcome, Succeeded)
    assert json.loads(outcome.result or "") == [
        str(asked.job), "t", "q", 2, 3, 9, 1.5, 2026, "00-1", ["a", "b"], {"k": "v"},
    ]  # fmt: skip
    assert result_of(lambda ctx: [ctx.tags, ctx.metadata, ctx.traceparent]) == [[], {}, None]


def test_two_handlers_for_one_type_are_refused_and_both_named() -> None:
    many = Handlers()
    many.add("t", payload_alone)
    with pytest.raises(HandlerError, match=r"two handlers for type 't': .*payload_alone.*context_alone"):
        many.add("t", context_alone)


def test_a_users_own_handler_comes_before_the_built_in_one() -> None:
    own, built_in = Handlers(), Handlers()
    own.add("email", payload_alone)
    built_in.add("email", context_alone)
    built_in.add("http", context_alone)
    merged = own.merged(built_in)
    assert merged.types() == ["email", "http"]
    assert merged.get("email").function is payload_alone


def test_the_decorator_registers_the_function_and_leaves_it_as_it_is() -> None:
    bound = handler("a type only this test has")(payload_alone)
    assert bound is payload_alone
    assert registered.get("a type only this test has").function is payload_alone


def unresolved(payload: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that the name is unknown is the case
def unresolved_attribute(payload: json.Nowhere) -> None: ...  # type: ignore[name-defined] - as above
def impossible_union(payload: Order | Letter) -> None: ...
def three(payload: Order, ctx: Context, more: int) -> None: ...
def by_position_only(payload: Order, /) -> None: ...
def anything(*payload: Any) -> None: ...
def any_names(**payload: Any) -> None: ...


@pytest.mark.parametrize(
    "function",
    [unresolved, unresolved_attribute, impossible_union, three, by_position_only, anything, any_names],
)
def test_a_function_that_cannot_be_a_handler_is_refused_with_its_type(function: Callable[..., Any]) -> None:
    with pytest.raises(HandlerError, match="handler of 't': ") as refusal:
        read_signature("t", function)
    assert "\n" not in str(refusal.value)
