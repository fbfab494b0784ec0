"""What users may import is what `__all__` says, no more and no less."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import jobyard
import jobyard.client
import jobyard.testing

PUBLIC = [jobyard, jobyard.client, jobyard.testing]


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_every_public_name_is_there_and_is_listed_once(package: ModuleType) -> None:
    assert len(package.__all__) == len(set(package.__all__))
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert missing == []


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_every_name_without_an_underscore_is_listed(package: ModuleType) -> None:
    ours = {name for name, value in vars(package).items() if _is_ours(value) and not name.startswith("_")}
    assert ours <= set(package.__all__)


def _is_ours(value: object) -> bool:
    return str(getattr(value, "__module__", "")).startswith("jobyard")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("handler", "jobyard.worker.handlers"),
        ("Context", "jobyard.worker.handlers"),
        ("Retry", "jobyard.domain.lifecycle"),
        ("Fail", "jobyard.domain.lifecycle"),
    ],
)
def test_the_package_gives_all_that_a_module_of_handlers_needs(name: str, module: str) -> None:
    assert name in jobyard.__all__
    assert getattr(jobyard, name) is getattr(importlib.import_module(module), name)


def test_importing_the_package_loads_no_part_of_the_server() -> None:
    """`jobyard create` and the client start fast only as long as the package itself is light."""
    look = "import sys, jobyard; print(*(m for m in sys.modules if m.startswith(('jobyard.', 'asyncpg', 'msgspec'))))"
    found = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == []


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        jobyard.no_such_name  # noqa: B018 - reading it is the test
