"""Names of projects, topics and subscriptions."""

from __future__ import annotations

import re
from typing import Literal

from jobyard.pubsub_emulator.refusals import InvalidArgument

Kind = Literal["topics", "subscriptions"]

DELETED_TOPIC = "_deleted-topic_"
"""What the service calls the topic of a subscription that has outlived it."""

_PROJECT = r"projects/(?P<project>[^/]+)"
_ID = r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}"


def check(kind: Kind, name: str) -> str:
    """The name, where it is one. Raises InvalidArgument."""
    if not re.fullmatch(f"{_PROJECT}/{kind}/{_ID}", name):
        raise InvalidArgument(
            f"Invalid [{kind}] name: (name={name}); it is projects/PROJECT/{kind}/ID, where ID has 3 to 255 letters, "
            "digits or -._~+%, begins with a letter, and not with goog"
        )
    return name


def check_project(name: str) -> str:
    """The name of a project. Raises InvalidArgument."""
    if not re.fullmatch(_PROJECT, name):
        raise InvalidArgument(f"Invalid project name: (name={name}); it is projects/PROJECT")
    return name


def project_of(name: str) -> str:
    """The project's id in the name of something of it."""
    return name.split("/")[1]


def id_of(name: str) -> str:
    """The last part."""
    return name.rsplit("/", 1)[1]
