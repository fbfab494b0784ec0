"""Is a push from Google, for us, and from the service account that may push? Its OIDC token tells."""

# google-auth leaves the types of some parameters open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, cast

import httpx
import msgspec
from google.auth import exceptions, jwt

from jobyard.domain.errors import JobyardError
from jobyard.ports import Clock

ISSUERS = ("https://accounts.google.com", "accounts.google.com")
ALGORITHM = "RS256"
SKEW_SECONDS = 60
LONGEST_TOKEN = 8192

KEYS_SECONDS = (60.0, 86_400.0)
"""How long keys are kept, whatever their answer says: at least, and at most."""

AGAIN_SECONDS = 60.0
"""How often a key that is not known may have the keys fetched anew."""

FETCH_SECONDS = 5.0

_MAX_AGE = re.compile(r"max-age=(\d{1,9})")


class Unauthenticated(JobyardError):
    """There is no token, or one that proves nothing."""


class Forbidden(JobyardError):
    """A good token of somebody else."""


class KeysUnavailable(JobyardError):
    """Nobody can tell now whether the token is good."""


class Keys:
    """Google's public keys by their id, from `url`, which answers a JSON object of PEM certificates or keys."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._known: dict[str, str] = {}
        self._fresh_until = self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._client = httpx.AsyncClient(timeout=FETCH_SECONDS)

    async def of(self, id: str) -> str | None:
        """The key, None where there is none of that id. Raises KeysUnavailable."""
        async with self._fetching:
            now = self._clock.now()
            is_new = id not in self._known and now - self._fetched_at >= AGAIN_SECONDS
            if now >= self._fresh_until or is_new:
                await self._fetch(now, is_needed=id not in self._known)
        return self._known.get(id)

    async def _fetch(self, now: float, *, is_needed: bool) -> None:
        try:
            response = await self._client.get(self._url)
            response.raise_for_status()
            found = msgspec.json.decode(response.content, type=dict[str, str])
        except (httpx.HTTPError, msgspec.MsgspecError) as trouble:
            if is_needed:
                raise KeysUnavailable(
                    f"cannot read the keys of tokens: {type(trouble).__name__}"
                ) from trouble
            self._fresh_until = now + KEYS_SECONDS[0]  # those that are known do for a while
            return
        least, most = KEYS_SECONDS
        said = _MAX_AGE.search(response.headers.get("Cache-Control", ""))
        self._known, self._fetched_at = found, now
        self._fresh_until = now + max(least, min(most, float(said[1]) if said else least))

    async def close(self) -> None:
        await self._client.aclose()


class TokenCheck:
    def __init__(self, audience: str, service_account: str, keys: Keys) -> None:
        self._audience = audience
        self._service_account = service_account
        self._keys = keys

    async def require(self, authorization: str) -> None:
        """The value of the header. Raises Unauthenticated, Forbidden and KeysUnavailable."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("send the token of the service account as Authorization: Bearer")
        if len(token) > LONGEST_TOKEN:
            raise Unauthenticated("the token is too long")
        key = await self._keys.of(_key_of(token))
        if key is None:
            raise Unauthenticated("the token is signed by a key that nobody knows")
        claims = self._claims(token, key)
        if claims.get("iss") not in ISSUERS:
            raise Unauthenticated("the token is of another issuer")
        if claims.get("email") != self._service_account or claims.get("email_verified") is not True:
            raise Forbidden("the token is of another account than JOBYARD_PUSH_SERVICE_ACCOUNT")

    def _claims(self, token: str, key: str) -> Mapping[str, Any]:
        try:
            return cast("Any", jwt).decode(
                token, certs=key, audience=self._audience, clock_skew_in_seconds=SKEW_SECONDS
            )
        except (exceptions.GoogleAuthError, ValueError, TypeError, KeyError) as wrong:
            # Its words quote the token.
            raise Unauthenticated(
                f"the token is not good for {self._audience}: wrong, too old or of another audience"
            ) from wrong


def _key_of(token: str) -> str:
    """The id of the key that the token says it is signed by. Raises Unauthenticated."""
    try:
        header = cast("Any", jwt).decode_header(token)
        algorithm, key = header["alg"], header["kid"]
    except (
        exceptions.GoogleAuthError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as wrong:
        raise Unauthenticated("the token is none") from wrong
    if algorithm != ALGORITHM or not isinstance(key, str):
        raise Unauthenticated(f"the token is not signed by {ALGORITHM}")
    return key
