"""Is the schema the one that this release's statements were written for?"""

from __future__ import annotations

from jobyard.doctor.finding import Finding, failure, ok, warning
from jobyard.doctor.patient import Patient
from jobyard.store import diagnosis, migrate
from jobyard.store.migrate import MigrationError

SHOWN = 10
"""Differences told one by one; when there are more, the schema is another one altogether."""


async def migrations(patient: Patient) -> list[Finding]:
    known = len(migrate.migrations())
    try:
        applied, missing = await migrate.history(patient.connection)
    except MigrationError as edited:
        return [
            failure(
                "migrations", str(edited), "see docs/how-to/operate.md, or ask the author of the database"
            )
        ]
    if missing:
        names = ", ".join(f"{it.number:04d}_{it.name}" for it in missing)
        return [failure("migrations", f"not applied yet: {names}", "run `jobyard migrate`")]
    if applied > known:
        return [
            warning(
                "migrations",
                f"the database has {applied}, this release knows {known}",
                "a newer release has migrated it: run the doctor of that release",
            )
        ]
    return [ok("migrations", f"all {known} applied")]


async def drift(patient: Patient) -> list[Finding]:
    found = await diagnosis.drift(patient.connection)
    findings = [
        *(_missing(line) for line in found.missing[:SHOWN]),
        *(_unexpected(line) for line in found.unexpected[:SHOWN]),
    ]
    more = len(found.missing) + len(found.unexpected) - len(findings)
    if more:
        findings.append(
            failure("schema", f"and {more} more differences", "run `jobyard migrate`, then the doctor again")
        )
    return findings or [ok("schema", "as this release made it")]


def _missing(line: str) -> Finding:
    kind, _, rest = line.partition(" ")
    if kind == "index":
        concurrently = rest.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)
        return failure("schema", f"an index is missing: {rest}", f"{concurrently};")
    return failure(
        "schema",
        f"missing: {line}",
        "run `jobyard migrate`; if it has nothing to do, somebody changed the schema by hand: put this back",
    )


def _unexpected(line: str) -> Finding:
    kind, _, rest = line.partition(" ")
    if rest.endswith(" (invalid)"):
        name = rest.split(" INDEX ")[1].split(" ")[0]
        return failure(
            "schema",
            f"an index is invalid, so it is kept up to date and never used: {name}",
            f"REINDEX INDEX CONCURRENTLY jobyard.{name};",
        )
    if kind == "index":
        return warning(
            "schema",
            f"an index of your own: {rest}",
            "it slows every write of that table; drop it unless you need it",
        )
    return warning("schema", f"not of this release: {line}", "nothing to do if you put it there yourself")
