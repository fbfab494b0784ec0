"""A PostgreSQL of our own, started when there is none: `make run` needs nothing installed."""

from jobyard.store.embedded.programs import EmbeddedPostgresError
from jobyard.store.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
