"""The processes that handlers of `child_jobs` run in: which there were, and whether they are still there."""

from __future__ import annotations

from pathlib import Path

from worker.yard import until


def runs(pid: int) -> bool:
    """Whether the process is there, and not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def noted_pids(notes: Path) -> list[int]:
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [int(line.removeprefix("pid ")) for line in lines if line.startswith("pid ")]


async def until_noted(notes: Path, count: int = 1) -> list[int]:
    await until(lambda: len(noted_pids(notes)) >= count, "the handler runs")
    return noted_pids(notes)
