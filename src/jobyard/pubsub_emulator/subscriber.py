"""The service google.pubsub.v1.Subscriber."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from google.pubsub_v1 import types

from jobyard.pubsub_emulator import limits
from jobyard.pubsub_emulator.backlog import Lease
from jobyard.pubsub_emulator.calls import Calls, Handler
from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.pushing import Pushing
from jobyard.pubsub_emulator.refusals import FailedPrecondition, InvalidArgument
from jobyard.pubsub_emulator.registry import Registry
from jobyard.pubsub_emulator.streaming import Stream, received
from jobyard.pubsub_emulator.subscription import Subscription

SERVICE = "google.pubsub.v1.Subscriber"
PULL_SECONDS = 30
"""A pull that found nothing answers so after this long."""


class Subscriber:
    def __init__(self, registry: Registry, pushing: Pushing, faults: Faults) -> None:
        self._registry = registry
        self._pushing = pushing
        self._faults = faults

    def handlers(self, calls: Calls) -> dict[str, Handler]:
        return {
            "CreateSubscription": calls.unary(
                types.Subscription, types.Subscription, self.create_subscription
            ),
            "GetSubscription": calls.unary(
                types.GetSubscriptionRequest, types.Subscription, self.get_subscription
            ),
            "UpdateSubscription": calls.unary(
                types.UpdateSubscriptionRequest, types.Subscription, self.update_subscription
            ),
            "ListSubscriptions": calls.unary(
                types.ListSubscriptionsRequest, types.ListSubscriptionsResponse, self.list_subscriptions
            ),
            "DeleteSubscription": calls.silent(types.DeleteSubscriptionRequest, self.delete_subscription),
            "ModifyPushConfig": calls.silent(types.ModifyPushConfigRequest, self.modify_push_config),
            "ModifyAckDeadline": calls.silent(types.ModifyAckDeadlineRequest, self.modify_ack_deadline),
            "Acknowledge": calls.silent(types.AcknowledgeRequest, self.acknowledge),
            "Pull": calls.unary(types.PullRequest, types.PullResponse, self.pull),
            "StreamingPull": calls.stream(
                types.StreamingPullRequest, types.StreamingPullResponse, self.streaming_pull
            ),
        }

    def create_subscription(self, config: types.Subscription) -> types.Subscription:
        return self._followed(self._registry.create_subscription(config))

    def get_subscription(self, request: types.GetSubscriptionRequest) -> types.Subscription:
        return self._registry.subscription(request.subscription).config

    def update_subscription(self, request: types.UpdateSubscriptionRequest) -> types.Subscription:
        return self._followed(self._registry.change_subscription(request))

    def list_subscriptions(self, request: types.ListSubscriptionsRequest) -> types.ListSubscriptionsResponse:
        found, token = self._registry.subscriptions_of(request.project, request.page_size, request.page_token)
        return types.ListSubscriptionsResponse(
            subscriptions=[subscription.config for subscription in found], next_page_token=token
        )

    def delete_subscription(self, request: types.DeleteSubscriptionRequest) -> None:
        self._pushing.follow(self._registry.delete_subscription(request.subscription))

    def modify_push_config(self, request: types.ModifyPushConfigRequest) -> None:
        wanted = types.Subscription(name=request.subscription, push_config=request.push_config)
        self.update_subscription(
            types.UpdateSubscriptionRequest(subscription=wanted, update_mask={"paths": ["push_config"]})
        )

    def modify_ack_deadline(self, request: types.ModifyAckDeadlineRequest) -> None:
        limits.check_ack_ids(request)
        limits.check_extensions([request.ack_deadline_seconds])
        self._registry.subscription(request.subscription).extend(
            request.ack_ids, request.ack_deadline_seconds
        )

    def acknowledge(self, request: types.AcknowledgeRequest) -> None:
        limits.check_ack_ids(request)
        self._registry.subscription(request.subscription).ack(request.ack_ids)

    async def pull(self, request: types.PullRequest) -> types.PullResponse:
        if request.max_messages < 1:
            raise InvalidArgument(f"max_messages must be at least 1: {request.max_messages}")
        subscription = self._pulled(request.subscription)
        leases: list[Lease] = []
        if request.return_immediately:
            leases = subscription.take(request.max_messages)
        else:
            try:
                async with asyncio.timeout(PULL_SECONDS):
                    leases = await subscription.next(request.max_messages)
            except TimeoutError:
                pass
        return types.PullResponse(received_messages=received(subscription, leases))

    async def streaming_pull(
        self, requests: AsyncIterator[types.StreamingPullRequest]
    ) -> AsyncIterator[types.StreamingPullResponse]:
        first = await anext(requests, None)
        if first is None:
            return
        stream = Stream(self._pulled(first.subscription), first, self._faults)
        async for response in stream.responses(requests):
            yield response

    def _pulled(self, name: str) -> Subscription:
        subscription = self._registry.subscription(name)
        if subscription.push:
            raise FailedPrecondition(f"messages of {name} are pushed; it cannot be pulled")
        return subscription

    def _followed(self, subscription: Subscription) -> types.Subscription:
        self._pushing.follow(subscription)
        return subscription.config
