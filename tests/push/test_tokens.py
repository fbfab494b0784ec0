"""Which tokens let a push in, and what becomes of the keys that they are signed with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobyard.clock import ManualClock
from jobyard.push.tokens import (
    AGAIN_SECONDS,
    KEYS_SECONDS,
    LONGEST_TOKEN,
    SKEW_SECONDS,
    Forbidden,
    Keys,
    KeysUnavailable,
    TokenCheck,
    Unauthenticated,
)
from push.google_account import ACCOUNT, AUDIENCE, Key, KeyServer
from web_server import web_server


@asynccontextmanager
async def checking(server: KeyServer, clock: ManualClock | None = None) -> AsyncIterator[TokenCheck]:
    async with web_server(server.reply) as serving:
        keys = Keys(f"{serving.url}/certs", clock or ManualClock())
        yield TokenCheck(AUDIENCE, ACCOUNT, keys)
        await keys.close()


async def test_a_token_of_google_for_us_and_from_the_account_is_good(key: Key) -> None:
    async with checking(KeyServer(key)) as check:
        await check.require(f"Bearer {key.token()}")
        await check.require(f"bearer {key.token(iss='accounts.google.com')}")
        now = int(time.time())
        await check.require(f"Bearer {key.token(iat=now + SKEW_SECONDS - 10)}")
        await check.require(f"Bearer {key.token(iat=now - 100, exp=now - SKEW_SECONDS + 10)}")


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://example.com"},
        {"iss": None},
        {"aud": "https://other.example.com"},
        {"aud": None},
        {"exp": int(time.time()) - 100},
        {"exp": None},
        {"iat": int(time.time()) + 1000, "exp": int(time.time()) + 2000},
        {"iat": None},
    ],
    ids=str,
)
async def test_a_token_that_proves_nothing_is_no_token(key: Key, claims: dict[str, Any]) -> None:
    async with checking(KeyServer(key)) as check:
        with pytest.raises(Unauthenticated):
            await check.require(f"Bearer {key.token(**claims)}")


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "other@project.iam.gserviceaccount.com"},
        {"email": None},
        {"email": ACCOUNT.upper()},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
    ],
    ids=str,
)
async def test_a_good_token_of_somebody_else_is_forbidden(key: Key, claims: dict[str, Any]) -> None:
    async with checking(KeyServer(key)) as check:
        with pytest.raises(Forbidden):
            await check.require(f"Bearer {key.token(**claims)}")


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged(key: Key, header: Any, secret: bytes = b"") -> str:
    claims = key.token().split(".")[1]
    signed = f"{part(header)}.{claims}"
    signature = hmac.digest(secret, signed.encode(), hashlib.sha256) if secret else b""
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_what_is_no_token_or_signed_in_another_way_is_refused(key: Key, other_key: Key) -> None:
    impostor = Key("first")
    good = key.token()
    refused = [
        *(
            "",
            "Bearer",
            "Bearer ",
            "Basic abc",
            "Bearer x",
            "Bearer a.b",
            "Bearer a.b.c",
            "Bearer ...",
            f"Token {good}",
        ),
        f"Bearer {good[:-4]}AAAA",
        f"Bearer {good}.x",
        f"Bearer {other_key.token()}",
        f"Bearer {impostor.token()}",
        f"Bearer {forged(key, {'alg': 'none', 'kid': 'first'})}",
        f"Bearer {forged(key, {'alg': 'HS256', 'kid': 'first'}, key.public.encode())}",
        f"Bearer {forged(key, {'alg': 'RS256'})}",
        f"Bearer {forged(key, {'alg': 'RS256', 'kid': 7})}",
        f"Bearer {forged(key, [])}",
        f"Bearer {'x' * (LONGEST_TOKEN + 1)}",
        f"Bearer {good}\N{LATIN SMALL LETTER E WITH ACUTE}",
    ]
    async with checking(KeyServer(key)) as check:
        for authorization in refused:
            with pytest.raises(Unauthenticated):
                await check.require(authorization)


async def test_no_refusal_quotes_the_token(key: Key) -> None:
    async with checking(KeyServer(key)) as check:
        token = key.token(aud="https://other.example.com")
        with pytest.raises(Unauthenticated) as why:
            await check.require(f"Bearer {token}")
        assert token[:40] not in str(why.value)


async def test_keys_are_fetched_once_for_as_long_as_their_answer_allows(key: Key) -> None:
    server, clock = KeyServer(key), ManualClock()
    server.headers = ["Cache-Control: public, max-age=1000, must-revalidate"]
    async with checking(server, clock) as check:
        for _ in range(3):
            await check.require(f"Bearer {key.token()}")
        assert server.asked == 1
        await clock.advance(1001)
        await check.require(f"Bearer {key.token()}")
        assert server.asked == 2


@pytest.mark.parametrize("said", ["no-store", "max-age=0", "max-age=x", ""])
async def test_keys_are_kept_for_a_minute_at_least(key: Key, said: str) -> None:
    server, clock = KeyServer(key), ManualClock()
    server.headers = [f"Cache-Control: {said}"] if said else []
    async with checking(server, clock) as check:
        await check.require(f"Bearer {key.token()}")
        await clock.advance(KEYS_SECONDS[0] - 1)
        await check.require(f"Bearer {key.token()}")
        assert server.asked == 1


async def test_a_new_key_is_fetched_when_it_is_first_met_and_no_more_than_once_a_minute(
    key: Key, other_key: Key
) -> None:
    server, clock = KeyServer(key), ManualClock()
    server.headers = ["Cache-Control: max-age=86400"]
    async with checking(server, clock) as check:
        await check.require(f"Bearer {key.token()}")
        await clock.advance(AGAIN_SECONDS)
        server.keys = [other_key]
        await check.require(f"Bearer {other_key.token()}")
        assert server.asked == 2
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                await check.require(f"Bearer {Key('third').token()}")
        assert server.asked == 2


async def test_while_the_keys_are_away_those_that_are_known_do_and_nobody_can_tell_of_others(
    key: Key, other_key: Key
) -> None:
    server, clock = KeyServer(key), ManualClock()
    async with checking(server, clock) as check:
        server.status = 500
        with pytest.raises(KeysUnavailable):
            await check.require(f"Bearer {key.token()}")
        server.status = 200
        await check.require(f"Bearer {key.token()}")
        server.status = 500
        await clock.advance(KEYS_SECONDS[0] + 1)
        await check.require(f"Bearer {key.token()}")
        await clock.advance(KEYS_SECONDS[0] + 1)
        with pytest.raises(KeysUnavailable):
            await check.require(f"Bearer {other_key.token()}")
