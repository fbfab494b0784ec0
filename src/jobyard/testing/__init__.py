"""For tests of code that uses Jobyard: the real thing on a database of its own, run by hand.

With pytest nothing has to be set up: a test that takes the argument `jobyard` gets a `Yard`. Without it:

    with Yard() as yard:
        yard.create("email", {"to": "user@example.com"})
        yard.run_until_idle()

Loaded when a name is first asked for, since pytest imports this package in every run of everybody who has it.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobyard.testing.jobs import Attempt, Job
    from jobyard.testing.runs import NeverIdle, NoHandler
    from jobyard.testing.turns import AttemptFailed
    from jobyard.testing.yard import Yard, YardError

_HOMES = {
    "Attempt": "jobyard.testing.jobs",
    "AttemptFailed": "jobyard.testing.turns",
    "Job": "jobyard.testing.jobs",
    "NeverIdle": "jobyard.testing.runs",
    "NoHandler": "jobyard.testing.runs",
    "Yard": "jobyard.testing.yard",
    "YardError": "jobyard.testing.yard",
}

__all__ = ["Attempt", "AttemptFailed", "Job", "NeverIdle", "NoHandler", "Yard", "YardError"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(_HOMES[name]), name)
