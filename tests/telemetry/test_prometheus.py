"""Prometheus takes what we give it: the metrics, the example configuration, the alert rules with their tests."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobyard.telemetry import metrics
from jobyard.telemetry.instruments import ROLES
from processes.program import free_port
from telemetry.yard_processes import KEY, yard_processes
from worker.yard import Yard, until

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = (FOLDER / "alerts.yml").read_text()
CASES = (FOLDER / "alerts_test.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="prometheus and promtool are not installed (Debian: apt install prometheus)",
)


def promtool(*arguments: str, given: bytes = b"") -> str:
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, input=given, capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


@needs_prometheus
def test_the_rules_are_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")


@needs_prometheus
def test_the_example_configuration_can_be_read() -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yml")


@needs_prometheus
def test_each_alert_fires_and_is_silent_as_its_cases_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


@needs_prometheus
@pytest.mark.parametrize("role", ROLES)
def test_the_metrics_follow_the_advice_of_promtool(role: str) -> None:
    metrics.RUN.of("q", "t").observe(1.0)
    assert promtool("check", "metrics", given=metrics.exposition(role, ready=True)) == ""


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    assert f"name: {alert} fires" in CASES
    assert f"name: {alert} is silent" in CASES
    cases = CASES.split("  - name: ")
    (fires,) = (case for case in cases if case.startswith(f"{alert} fires"))
    (silent,) = (case for case in cases if case.startswith(f"{alert} is silent"))
    assert "exp_labels" in fires
    assert "exp_alerts: []" in silent


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_what_happened_and_where_to_read_on(alert: str) -> None:
    (rule,) = (rule for rule in RULES.split("      - alert: ") if rule.startswith(f"{alert}\n"))
    for part in ("severity: ", "summary: ", "description: "):
        assert part in rule
    (runbook,) = re.findall(r"runbook: (\S+)", rule)
    document, _, section = runbook.partition("#")
    assert section == alert.lower()
    assert f"\n### {alert}\n" in (ROOT / document).read_text()


def test_the_rules_and_the_docs_ask_for_metrics_that_there_are() -> None:
    known = {metric.name for metric in metrics.METRICS}
    texts = [RULES, CASES, (ROOT / "docs" / "how-to" / "operate.md").read_text()]
    asked = {name for text in texts for name in re.findall(r"\bjobyard_\w+", text)}
    assert {name.removesuffix("_bucket") for name in asked} <= known


# A real Prometheus at a real run


class Prometheus:
    def __init__(self, port: int, client: httpx.AsyncClient) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"
        self._client = client

    async def ask(self, path: str, **query: str) -> Any:
        """None while it does not answer."""
        try:
            answer = await self._client.get(f"{self._url}/{path}", params=query)
        except httpx.HTTPError:
            return None
        assert answer.status_code in (200, 503), answer.text
        return answer.json()["data"] if answer.is_success else None

    async def all_up(self) -> bool:
        found = await self.ask("query", query='sum(up{job=~"jobyard-.+"})')
        return bool(found) and [it["value"][1] for it in found["result"]] == ["3"]


@asynccontextmanager
async def prometheus(folder: Path, ports: dict[str, int]) -> AsyncGenerator[Prometheus]:
    """With our example configuration, told where the processes are and to look at them often."""
    (folder / "key").write_text(KEY)
    (folder / "alerts.yml").write_text(RULES)
    configuration = (FOLDER / "prometheus.yml").read_text()
    for before, after in [
        ("15s", "200ms"),
        ("/etc/prometheus/jobyard.key", str(folder / "key")),
        ("api:3000", f"127.0.0.1:{ports['api']}"),
        ("worker:8080", f"127.0.0.1:{ports['worker']}"),
        ("maintain:8080", f"127.0.0.1:{ports['maintain']}"),
    ]:
        assert before in configuration
        configuration = configuration.replace(before, after)
    (folder / "prometheus.yml").write_text(configuration)
    port = free_port()
    process = subprocess.Popen(
        ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            yield Prometheus(port, client)
    finally:
        process.kill()
        process.wait()


@needs_prometheus
async def test_a_real_prometheus_scrapes_a_real_run_and_evaluates_every_alert(
    yard: Yard, tmp_path: Path
) -> None:
    await yard.add("nobody.knows", 3)
    await yard.add("tell-all", payload="done")
    async with (
        yard_processes(tmp_path, yard.url) as processes,
        prometheus(tmp_path, processes.ports) as watching,
    ):
        await until(watching.all_up, "all three are scraped with the key", 60)
        depth = 'max by (type) (jobyard_jobs{place="ready",type="nobody.knows"})'

        async def depth_is_seen() -> bool:
            found = await watching.ask("query", query=depth)
            return [it["value"][1] for it in found["result"]] == ["3"]

        await until(depth_is_seen, "the depth of the sample is seen", 30)
        groups = (await watching.ask("rules"))["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        assert sorted(rules) == sorted(ALERTS)
        for rule in rules.values():
            assert await watching.ask("query", query=rule["query"]) is not None
            assert rule["lastError"] == "" if "lastError" in rule else rule["health"] in ("ok", "unknown")

        async def pending() -> set[str]:
            alerts = (await watching.ask("alerts"))["alerts"]
            return {alert["labels"]["alertname"] for alert in alerts}

        await until(pending, "an alert is about to fire", 30)
        assert await pending() == {"JobyardNoWorker"}, "three jobs wait for a type that no worker runs"
