"""Pushes messages to the endpoints of push subscriptions."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from typing import Any

import httpx
from google.pubsub_v1 import types

from jobyard.pubsub_emulator.backlog import Lease, Receiver
from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.subscription import Subscription
from jobyard.pubsub_emulator.tokens import TokenSigner

ACKS = frozenset({200, 201, 202, 204})
OUTSTANDING = 100
"""How many requests to one endpoint are open at a time."""


class Pushing:
    """One loop for each subscription that pushes."""

    def __init__(self, signer: TokenSigner, faults: Faults) -> None:
        self._signer = signer
        self._faults = faults
        self._loops: dict[str, asyncio.Task[None]] = {}
        # A connection that is used again may be closed by the endpoint just then, and the push fails that it never saw.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(trust_env=False, limits=limits)

    def follow(self, subscription: Subscription) -> None:
        """Begin or end, after the subscription has changed."""
        if subscription.push is None:
            if loop := self._loops.pop(subscription.name, None):
                loop.cancel()
        elif subscription.name not in self._loops:
            self._loops[subscription.name] = asyncio.create_task(self._push_all(subscription))

    async def aclose(self) -> None:
        loops = list(self._loops.values())
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self._client.aclose()

    async def _push_all(self, subscription: Subscription) -> None:
        receiver = Receiver(max_messages=OUTSTANDING)
        async with asyncio.TaskGroup() as requests:
            while True:
                for lease in await subscription.next(OUTSTANDING, receiver):
                    requests.create_task(self._push(subscription, lease))

    async def _push(self, subscription: Subscription, lease: Lease) -> None:
        await self._faults.delay()
        push = subscription.push
        if push is not None and await self._is_taken(subscription, push, lease):
            subscription.ack([lease.ack_id])
        else:
            subscription.extend([lease.ack_id], 0)

    async def _is_taken(self, subscription: Subscription, push: types.PushConfig, lease: Lease) -> bool:
        try:
            response = await self._client.post(
                push.push_endpoint,
                json=envelope(subscription, lease),
                headers=self._headers(push),
                timeout=subscription.config.ack_deadline_seconds,
            )
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        return response.status_code in ACKS

    def _headers(self, push: types.PushConfig) -> dict[str, str]:
        headers = {"User-Agent": "CloudPubSub-Google"}
        if "oidc_token" in push:
            token = push.oidc_token
            signed = self._signer.token(token.service_account_email, token.audience or push.push_endpoint)
            headers["Authorization"] = f"Bearer {signed}"
        return headers


def envelope(subscription: Subscription, lease: Lease) -> dict[str, Any]:
    """The body of a push. Ids and times come twice, as the service sends them, and what is empty not at all."""
    message = lease.message
    published = datetime.fromtimestamp(message.published, UTC).isoformat(timespec="milliseconds")
    published = published.replace("+00:00", "Z")
    body: dict[str, Any] = {
        "data": base64.b64encode(message.data).decode(),
        "attributes": dict(message.attributes),
        "messageId": message.id,
        "message_id": message.id,
        "publishTime": published,
        "publish_time": published,
        "orderingKey": message.ordering_key,
    }
    told: dict[str, Any] = {
        "message": {name: value for name, value in body.items() if value},
        "subscription": subscription.name,
    }
    if subscription.counts_attempts:
        told["deliveryAttempt"] = lease.attempt
    return told
