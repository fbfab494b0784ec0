"""The service google.pubsub.v1.Publisher."""

from __future__ import annotations

from google.pubsub_v1 import types

from jobyard.pubsub_emulator import limits
from jobyard.pubsub_emulator.calls import Calls, Handler
from jobyard.pubsub_emulator.pushing import Pushing
from jobyard.pubsub_emulator.registry import Registry

SERVICE = "google.pubsub.v1.Publisher"


class Publisher:
    def __init__(self, registry: Registry, pushing: Pushing) -> None:
        self._registry = registry
        self._pushing = pushing

    def handlers(self, calls: Calls) -> dict[str, Handler]:
        return {
            "CreateTopic": calls.unary(types.Topic, types.Topic, self.create_topic),
            "UpdateTopic": calls.unary(types.UpdateTopicRequest, types.Topic, self.update_topic),
            "GetTopic": calls.unary(types.GetTopicRequest, types.Topic, self.get_topic),
            "ListTopics": calls.unary(types.ListTopicsRequest, types.ListTopicsResponse, self.list_topics),
            "ListTopicSubscriptions": calls.unary(
                types.ListTopicSubscriptionsRequest,
                types.ListTopicSubscriptionsResponse,
                self.list_topic_subscriptions,
            ),
            "DeleteTopic": calls.silent(types.DeleteTopicRequest, self.delete_topic),
            "DetachSubscription": calls.unary(
                types.DetachSubscriptionRequest, types.DetachSubscriptionResponse, self.detach_subscription
            ),
            "Publish": calls.unary(types.PublishRequest, types.PublishResponse, self.publish),
        }

    def create_topic(self, config: types.Topic) -> types.Topic:
        return self._registry.create_topic(config).config

    def update_topic(self, request: types.UpdateTopicRequest) -> types.Topic:
        return self._registry.change_topic(request).config

    def get_topic(self, request: types.GetTopicRequest) -> types.Topic:
        return self._registry.topic(request.topic).config

    def list_topics(self, request: types.ListTopicsRequest) -> types.ListTopicsResponse:
        topics, token = self._registry.topics_of(request.project, request.page_size, request.page_token)
        return types.ListTopicsResponse(topics=[topic.config for topic in topics], next_page_token=token)

    def list_topic_subscriptions(
        self, request: types.ListTopicSubscriptionsRequest
    ) -> types.ListTopicSubscriptionsResponse:
        found, token = self._registry.subscriptions_of_topic(
            request.topic, request.page_size, request.page_token
        )
        return types.ListTopicSubscriptionsResponse(
            subscriptions=[subscription.name for subscription in found], next_page_token=token
        )

    def delete_topic(self, request: types.DeleteTopicRequest) -> None:
        self._registry.delete_topic(request.topic)

    def detach_subscription(
        self, request: types.DetachSubscriptionRequest
    ) -> types.DetachSubscriptionResponse:
        self._pushing.follow(self._registry.detach_subscription(request.subscription))
        return types.DetachSubscriptionResponse()

    def publish(self, request: types.PublishRequest) -> types.PublishResponse:
        limits.check_publish(request)
        return types.PublishResponse(message_ids=self._registry.publish(request.topic, request.messages))
