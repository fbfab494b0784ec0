from __future__ import annotations

import pytest

from jobyard.main import require_current_schema
from jobyard.process import SUPERVISED


async def test_a_process_tells_its_connections_unless_jobyard_dev_has_started_it(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SUPERVISED, "1")
    await require_current_schema(database, connections=6)
    assert "processes_carried" not in capsys.readouterr().out
    monkeypatch.delenv(SUPERVISED)
    await require_current_schema(database, connections=6)
    assert "processes_carried" in capsys.readouterr().out
