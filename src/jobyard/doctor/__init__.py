"""`jobyard doctor` and `jobyard verify`: is this database fit for Jobyard, and does it keep the promises?"""

from __future__ import annotations

import asyncio

from jobyard.config import Settings


def examine(settings: Settings, *, as_json: bool = False) -> int:
    """Run every check and tell what each found; the exit code: 1 when something is wrong."""
    from jobyard.doctor.checks import examine
    from jobyard.doctor.patient import on_patient

    return asyncio.run(on_patient(settings, lambda patient: examine(patient, as_json)))


def verify(settings: Settings, *, as_json: bool = False) -> int:
    """Look at every job and every place; the exit code: 1 when a promise is broken."""
    from jobyard.doctor.patient import on_patient
    from jobyard.doctor.verification import verify

    return asyncio.run(on_patient(settings, lambda patient: verify(patient, as_json)))
