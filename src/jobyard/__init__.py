"""Jobyard: a job backend that any service can talk to over plain HTTP.

What a module of handlers needs is here; it is loaded when it is first asked for, so that the command line, which needs
none of it, starts fast.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobyard.domain.errors import InvalidJob, LeaseLost
    from jobyard.domain.lifecycle import Fail, Retry
    from jobyard.worker.context import AttemptCancelled, Context
    from jobyard.worker.handlers import handler

_HOMES = {
    "AttemptCancelled": "jobyard.worker.context",
    "Context": "jobyard.worker.context",
    "Fail": "jobyard.domain.lifecycle",
    "InvalidJob": "jobyard.domain.errors",
    "LeaseLost": "jobyard.domain.errors",
    "Retry": "jobyard.domain.lifecycle",
    "handler": "jobyard.worker.handlers",
}

__all__ = ["AttemptCancelled", "Context", "Fail", "InvalidJob", "LeaseLost", "Retry", "handler"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(_HOMES[name]), name)
