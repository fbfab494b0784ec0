from __future__ import annotations

from store.conftest import scene, worn_database  # noqa: F401 - fixtures: a database with jobs in it
