"""In CI a test that was skipped is a failure: what a machine lacks is to be installed there, not passed over.

The exceptions are marked `needs_cloud_account`. `make test` loads this with CI set.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

EXCEPTED = "needs_cloud_account"


def _may_not_be_skipped(report: pytest.TestReport | pytest.CollectReport) -> bool:
    expected_to_fail = hasattr(report, "wasxfail")
    return (
        report.outcome == "skipped"
        and not expected_to_fail
        and EXCEPTED not in getattr(report, "keywords", {})
    )


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: {reason}\nIn CI nothing is skipped: install what this test lacks."


# Wrappers, for the session counts failures before any plain hook sees the report.
@pytest.hookimpl(wrapper=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> Generator[None]:
    if _may_not_be_skipped(report):
        _fail(report)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_collectreport(report: pytest.CollectReport) -> Generator[None]:
    if _may_not_be_skipped(report):
        _fail(report)
    return (yield)
