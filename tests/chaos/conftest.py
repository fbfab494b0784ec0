from __future__ import annotations

import pytest

from store.conftest import scene, worn_database  # noqa: F401 - fixtures: a database with jobs in it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first, and all others beside it."""
    items.sort(key=lambda item: item.path.name != "test_kill_harness.py")
