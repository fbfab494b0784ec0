"""What topics and subscriptions may be configured to be: defaults, limits, changes, and the rules that come of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import types

from jobyard.pubsub_emulator import limits, names
from jobyard.pubsub_emulator.backlog import AT_ONCE, DAY, Backoff, Rules
from jobyard.pubsub_emulator.refusals import InvalidArgument, Unimplemented
from jobyard.pubsub_emulator.wire import raw

RETENTION_SECONDS = (600, 31 * DAY)
DEFAULT_RETENTION, DEFAULT_EXPIRY = Duration(seconds=7 * DAY), Duration(seconds=31 * DAY)
DEFAULT_ACK_SECONDS = 10
BACKOFF_SECONDS = (0, 600)
DEFAULT_BACKOFF = Backoff(10, 600)
PUSH_BACKOFF = Backoff(0.1, 60)
"""Of a push subscription without a retry policy."""
ATTEMPTS = (5, 100)
LABELS = 64

NOT_EMULATED = {
    types.Topic: ("schema_settings", "ingestion_data_source_settings", "message_transforms"),
    types.Subscription: (
        "filter",
        "enable_exactly_once_delivery",
        "bigquery_config",
        "bigtable_config",
        "cloud_storage_config",
        "message_transforms",
    ),
}
"""Better refused than taken and not done."""

UNCHANGEABLE = {
    types.Topic: {"name"},
    types.Subscription: {"name", "topic", "enable_message_ordering", "filter"},
}

Config = TypeVar("Config", types.Topic, types.Subscription)


def completed_topic(config: types.Topic) -> types.Topic:
    """With what the service fills in. Raises Refusal."""
    _check_emulated(config)
    _check_labels(config)
    if "message_retention_duration" in config:
        _check_within(
            "message_retention_duration", _seconds(config.message_retention_duration), RETENTION_SECONDS
        )
    config.state = types.Topic.State.ACTIVE
    return config


def completed_subscription(config: types.Subscription) -> types.Subscription:
    """With what the service fills in. Raises Refusal."""
    _check_emulated(config)
    _check_labels(config)
    config.ack_deadline_seconds = config.ack_deadline_seconds or DEFAULT_ACK_SECONDS
    limits.check_ack_seconds(config.ack_deadline_seconds)
    if "message_retention_duration" not in config:
        config.message_retention_duration = DEFAULT_RETENTION
    if "expiration_policy" not in config:
        config.expiration_policy = types.ExpirationPolicy(ttl=DEFAULT_EXPIRY)
    _check_within(
        "message_retention_duration", _seconds(config.message_retention_duration), RETENTION_SECONDS
    )
    if "retry_policy" in config:
        _check_backoff(_backoff(config.retry_policy))
    if "dead_letter_policy" in config:
        _complete_dead_letters(config.dead_letter_policy)
    check_push(config.push_config)
    config.state = types.Subscription.State.ACTIVE
    return config


def changed(config: Config, wanted: Config, mask: FieldMask) -> Config:
    """A copy with the fields that the mask names. Raises InvalidArgument."""
    kind = type(config)
    if not mask.paths:
        raise InvalidArgument("the update_mask must name at least one field")
    if fixed := {path.split(".")[0] for path in mask.paths} & UNCHANGEABLE[kind]:
        raise InvalidArgument(f"cannot be changed: {', '.join(sorted(fixed))}")
    copy = kind(config)
    into = raw(copy)
    if not mask.IsValidForDescriptor(cast("Any", into.DESCRIPTOR)):
        raise InvalidArgument(f"the update_mask names a field that there is not: {', '.join(mask.paths)}")
    mask.MergeMessage(raw(wanted), into, replace_message_field=True, replace_repeated_field=True)
    return copy


def rules_of(config: types.Subscription) -> Rules:
    """How a completed configuration has messages delivered."""
    pushes = bool(config.push_config.push_endpoint)
    backoff = (
        _backoff(config.retry_policy) if "retry_policy" in config else PUSH_BACKOFF if pushes else AT_ONCE
    )
    buries = "dead_letter_policy" in config
    return Rules(
        ack_seconds=config.ack_deadline_seconds,
        ordered=config.enable_message_ordering,
        retention_seconds=_seconds(config.message_retention_duration),
        backoff=backoff,
        max_attempts=config.dead_letter_policy.max_delivery_attempts if buries else None,
    )


def check_push(push: types.PushConfig) -> None:
    """Raises Refusal."""
    if "no_wrapper" in push:
        raise Unimplemented("the emulator does not push unwrapped messages")
    if not push.push_endpoint:
        return
    parts = urlsplit(push.push_endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"Invalid push endpoint given (endpoint={push.push_endpoint})")
    if "oidc_token" in push and not push.oidc_token.service_account_email:
        raise InvalidArgument("oidc_token needs a service_account_email")


def _check_emulated(config: types.Topic | types.Subscription) -> None:
    if unknown := [name for name in NOT_EMULATED[type(config)] if getattr(config, name)]:
        raise Unimplemented(f"the emulator does not know {', '.join(unknown)}")


def _check_labels(config: types.Topic | types.Subscription) -> None:
    if len(config.labels) > LABELS:
        raise InvalidArgument(f"at most {LABELS} labels; there are {len(config.labels)}")


def _complete_dead_letters(policy: types.DeadLetterPolicy) -> None:
    names.check("topics", policy.dead_letter_topic)
    policy.max_delivery_attempts = policy.max_delivery_attempts or ATTEMPTS[0]
    _check_within("max_delivery_attempts", policy.max_delivery_attempts, ATTEMPTS)


def _backoff(policy: types.RetryPolicy) -> Backoff:
    least, most = DEFAULT_BACKOFF.least, DEFAULT_BACKOFF.most
    if "minimum_backoff" in policy:
        least = _seconds(policy.minimum_backoff)
    if "maximum_backoff" in policy:
        most = _seconds(policy.maximum_backoff)
    return Backoff(least, most)


def _check_backoff(backoff: Backoff) -> None:
    _check_within("minimum_backoff", backoff.least, BACKOFF_SECONDS)
    _check_within("maximum_backoff", backoff.most, BACKOFF_SECONDS)
    if backoff.least > backoff.most:
        raise InvalidArgument("minimum_backoff must not be longer than maximum_backoff")


def _check_within(name: str, value: float, bounds: tuple[float, float]) -> None:
    least, most = bounds
    if not least <= value <= most:
        raise InvalidArgument(f"{name} is {least:g} to {most:g}, not {value:g}")


def _seconds(duration: Duration) -> float:
    # The classes say Duration, and give what Python has for it.
    return cast("timedelta", cast("Any", duration)).total_seconds()
