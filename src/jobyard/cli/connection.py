"""Settings and the client, as the commands use them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobyard.config import Settings, SettingsError

if TYPE_CHECKING:
    from jobyard.client import Client, ClientError


def read_settings(**variables: str | int | None) -> Settings:
    """The settings of the environment, with options of the command line in place of their variables, so that both
    pass the same checks."""
    given = {name: str(value) for name, value in variables.items() if value is not None}
    return Settings.read({**os.environ, **given})


def connect(
    *,
    retry_seconds: float,
    on_retry: Callable[[ClientError, float], None] | None = None,
    on_recovery: Callable[[], None] | None = None,
    timeout: float = 30.0,
) -> Client:
    from jobyard.client import Client

    settings = read_settings()
    try:
        return Client(
            settings.url,
            settings.key,
            retry_seconds=retry_seconds,
            on_retry=on_retry,
            on_recovery=on_recovery,
            timeout=timeout,
        )
    except ValueError as error:
        raise SettingsError([f"JOBYARD_URL, JOBYARD_KEY: {error}"]) from None
