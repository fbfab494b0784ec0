"""schemathesis against a running API: whatever the OpenAPI document allows, and whatever it forbids, is answered as it
says, and nothing by a 5xx."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from api.site import Site, serving
from jobyard.api.app import ROUTES
from jobyard.store.database import Pool

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".venv-tools" / "bin" / "schemathesis"
FOLDER = Path(__file__).parent / "fuzzing"
KEY = "fuzzing-key"


async def fuzz(site: Site, folder: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of a run over all phases with all checks. Its own folder, since it leaves files behind."""
    document = folder / "openapi.json"
    document.write_text(json.dumps((await site.get("/openapi.json")).json()))
    running = await asyncio.create_subprocess_exec(
        PROGRAM, "--config-file", FOLDER / "schemathesis.toml", "run", document,
        "--url", f"http://127.0.0.1:{site.port}", "--suppress-health-check", "all", "--no-color", *options,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(FOLDER), "FUZZING_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
    return running.returncode or 0, output.decode()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--seed", "3", "--max-examples", "10", "--no-shrink"), id="a few"),
        pytest.param(("--max-examples", "2000", "--continue-on-failure"), id="many", marks=pytest.mark.soak),
    ],
)
async def test_whatever_it_sends_is_answered_as_the_document_says(
    pool: Pool, tmp_path: Path, options: tuple[str, ...]
):
    async with serving(pool, key=KEY) as site:
        code, output = await fuzz(site, tmp_path, *options)
    assert code == 0, output
    assert f"Tested: {len(ROUTES)}" in output
