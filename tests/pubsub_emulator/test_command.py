"""The command: how it starts, what it says, how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from emulating import Running, emulator_process
from google.api_core import exceptions
from service import Service

WITHOUT_GRPC = (
    "import sys; sys.modules['grpc'] = None; sys.argv[0] = 'jobyard'; from jobyard.cli import main; main()"
)


def test_an_interrupt_ends_it_cleanly() -> None:
    with emulator_process() as running:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(10) == 0


def test_a_subscriber_who_waits_does_not_hold_up_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with emulator_process() as running:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", running.address)
        with Service("test-project") as service:
            stream = service.stream(service.subscription(service.topic()))
            next(stream)
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(10) == 0
            with pytest.raises((exceptions.ServiceUnavailable, exceptions.Cancelled)):
                next(stream)


def test_faults_may_be_given_as_options() -> None:
    with emulator_process("--duplicate", "0.25", "--slow-seconds", "3", "--seed", "9") as running:
        plan = httpx.get(f"{running.http}/faults", trust_env=False).json()
    assert plan == {
        "duplicate": 0.25,
        "loseAck": 0,
        "cutStream": 0,
        "unavailable": 0,
        "slow": 0,
        "slowSeconds": 3,
        "seed": 9,
    }


@pytest.mark.parametrize("option", ["--port", "--http-port"])
def test_a_port_that_is_taken_is_told_in_a_sentence(emulator: Running, option: str) -> None:
    taken = {"--port": emulator.address, "--http-port": emulator.http}[option].rpartition(":")[2]
    ports = {"--port": "0", "--http-port": "0", option: taken}
    command = [sys.executable, "-m", "jobyard.cli", "pubsub-emulator"]
    for name, port in ports.items():
        command += [name, port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"jobyard: cannot listen on 127.0.0.1:{taken}")
    assert ended.stderr.endswith(f"give another {option}\n")
    assert ended.stderr.count("\n") == 1


def test_without_its_extra_it_says_what_to_install() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_GRPC, "pubsub-emulator"], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "jobyard: the emulator of Pub/Sub needs grpc, which is not installed; "
        'run `pip install "jobyard[gcp]"` (in a checkout `make install`)\n'
    )


def test_no_other_command_loads_any_of_it(tmp_path: Path) -> None:
    program = (
        "import sys, jobyard.cli.app; "
        "sys.exit(any(name.split('.')[0] in ('grpc', 'google', 'cryptography') or 'emulator' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=30).returncode == 0
