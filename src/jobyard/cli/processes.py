"""Commands that become a long-running process, and those that work on the database: all of it is in `jobyard.main`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jobyard.cli.connection import read_settings

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on (HOST).")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on (PORT).")]
App = Annotated[
    str | None, typer.Option("--app", metavar="MODULE", help="Module that holds your handlers (JOBYARD_APP).")
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", help="Attempts to run at a time (JOBYARD_CONCURRENCY).")
]
Json = Annotated[bool, typer.Option("--json", help="Machine output on stdout.")]
Scenario = Literal["create", "drain", "named", "life", "latency", "bloat"]


def dev(host: Host = None, port: Port = None, app: App = None, concurrency: Concurrency = None) -> None:
    """Run everything here: PostgreSQL (unless DATABASE_URL is set), API, worker and maintainer."""
    settings = read_settings(HOST=host, PORT=port, JOBYARD_APP=app, JOBYARD_CONCURRENCY=concurrency)
    import jobyard.main as root

    raise typer.Exit(root.dev(settings))


def api(host: Host = None, port: Port = None) -> None:
    """Serve the HTTP API."""
    settings = read_settings(HOST=host, PORT=port)
    import jobyard.main as root

    raise typer.Exit(root.api(settings))


def worker(app: App = None, concurrency: Concurrency = None) -> None:
    """Run jobs."""
    settings = read_settings(JOBYARD_APP=app, JOBYARD_CONCURRENCY=concurrency)
    import jobyard.main as root

    raise typer.Exit(root.worker(settings))


def maintain() -> None:
    """Sweep orphans, start what is due, and keep the history within its bounds."""
    settings = read_settings()
    import jobyard.main as root

    raise typer.Exit(root.maintain(settings))


def migrate(as_json: Json = False) -> None:
    """Bring the schema of DATABASE_URL up to date."""
    settings = read_settings()
    import jobyard.main as root

    raise typer.Exit(root.migrate(settings, as_json=as_json))


def doctor(as_json: Json = False) -> None:
    """Examine the database: schema, vacuum, long transactions, clock, wake-ups, workers; each finding with its fix.

    Looks at DATABASE_URL or, without it, at the PostgreSQL of `jobyard dev`. Changes nothing."""
    settings = read_settings()
    from jobyard.doctor import examine

    raise typer.Exit(examine(settings, as_json=as_json))


def verify(as_json: Json = False) -> None:
    """Prove that no job is lost and none ran twice in silence, also on a database at work.

    Holds every job, place and row of the log against the others: each job is in exactly one place, each attempt had one
    owner and one end, and what was final stayed.

    Looks at DATABASE_URL or, without it, at the PostgreSQL of `jobyard dev`. Changes nothing."""
    settings = read_settings()
    from jobyard.doctor import verify

    raise typer.Exit(verify(settings, as_json=as_json))


def bench(
    scenario: Annotated[
        Scenario, typer.Argument(help="What to measure: create, drain, named, life, latency or bloat.")
    ],
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="How many jobs.")] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine, beside the limit of raw SQL in the same run."""
    settings = read_settings()
    from jobyard.bench import run

    raise typer.Exit(run(scenario, jobs, as_json, settings))
