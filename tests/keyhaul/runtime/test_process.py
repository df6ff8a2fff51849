"""The life of a service process: it starts or says why not, and it ends in time."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyhaul.runtime.local import LocalRefusal, ask

ROOT = Path(__file__).parents[3]
SMALL = Path(__file__).with_name("small_role.py")

CONFIG = """
[service]
domain = "qkdn.test"
role = "ckms"
node = "8"
[operations]
metrics = "{metrics}"
socket = "{socket}"
log_format = "json"
"""

STORE = """
[store]
path = "store.db"
key_file = "store.key"
"""


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Service:
    """One process of the small role."""

    def __init__(self, directory: Path, behaviour: str, config: str, environment: dict[str, str]) -> None:
        path = directory / "config.toml"
        path.write_text(config)
        self.process = subprocess.Popen(
            [sys.executable, str(SMALL), behaviour, str(path)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.lines: list[str] = []

    def events(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def wait_for(self, event: str) -> dict[str, Any]:
        """Read the log until an event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if line.startswith("{") and json.loads(line)["event"] == event:
                found: dict[str, Any] = json.loads(line)
                return found
        raise AssertionError(f"no event {event} in {self.lines}")

    def end(self, timeout: float = 20.0) -> int:
        """Wait for the process to end, and return its exit code."""
        _, rest = self.process.communicate(timeout=timeout)
        self.lines += rest.splitlines()
        return self.process.returncode


Starter = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    running: list[Service] = []

    def starter(
        behaviour: str = "serve",
        *,
        metrics: str | None = None,
        local: str = "run/socket",
        more: str = "",
        environment: dict[str, str] | None = None,
        directory: Path = tmp_path,
    ) -> Service:
        config = CONFIG.format(metrics=metrics or free_address(), socket=local) + more
        service = Service(directory, behaviour, config, environment or {})
        running.append(service)
        return service

    yield starter
    for service in running:
        if service.process.poll() is None:
            service.process.kill()
            service.process.communicate()
        elif service.process.stderr is not None:
            service.process.stderr.close()


def get(address: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


async def test_a_service_serves_and_stops(start: Starter, tmp_path: Path) -> None:
    metrics = free_address()
    service = start(metrics=metrics)
    service.wait_for("ready")
    status, body = get(metrics, "/health")
    assert (status, json.loads(body)["ready"], json.loads(body)["service"]) == (200, True, "ckms-8")
    assert json.loads(body)["links"] == [{"link": "8-9", "state": "up"}]
    _, text = get(metrics, "/metrics")
    assert 'keyhaul_alarms_total{alarm="test-alarm"} 1.0' in text
    assert "process_start_time_seconds" in text
    assert 'keyhaul_build_info{role="ckms"' in text
    assert get(metrics, "/other")[0] == 404
    path = tmp_path / "run/socket"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    state = await ask(path, "status")
    assert state["alarms"] == {"test-alarm": 1}
    assert state["pid"] == service.process.pid
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.end() == 0
    assert time.monotonic() - began < 5
    assert not path.exists()


async def test_commands_are_answered_or_refused_with_a_reason(start: Starter, tmp_path: Path) -> None:
    service = start()
    service.wait_for("ready")
    path = tmp_path / "run/socket"
    assert await ask(path, "echo", {"a": 1}) == {"echo": {"a": 1}}
    for arguments, kind, message in (
        ({"key": 1}, "unknown", "no such key"),
        ({"number": "x"}, "invalid", "number is not a number"),
        ({"bug": 1}, "failed", "AssertionError: the service's log has more"),
    ):
        with pytest.raises(LocalRefusal, match=message) as caught:
            await ask(path, "echo", arguments)
        assert caught.value.kind == kind
    with pytest.raises(LocalRefusal, match="it knows echo, reload, status, store"):
        await ask(path, "nothing")


async def test_a_changed_configuration_is_taken_on_sighup_and_on_command(start: Starter, tmp_path: Path) -> None:
    service = start()
    service.wait_for("starting")
    service.process.send_signal(signal.SIGHUP)
    service.wait_for("the configuration was taken")
    path, file = tmp_path / "run/socket", tmp_path / "config.toml"
    content = file.read_text()
    file.write_text(content.replace('log_format = "json"', 'log_format = "json"\nlog_level = "debug"'))
    assert await ask(path, "reload") == {"restart": ["operations"], "refused": ""}
    assert (await ask(path, "status"))["configuration"]["restart"] == ["operations"]
    file.write_text(content + "[[link")
    service.process.send_signal(signal.SIGHUP)
    assert "is not TOML" in service.wait_for("alarm")["why"]
    with pytest.raises(LocalRefusal, match="is not TOML"):
        await ask(path, "reload")
    state = await ask(path, "status")
    assert state["alarms"]["configuration-refused"] == 2
    assert "is not TOML" in state["configuration"]["refused"]
    service.process.send_signal(signal.SIGTERM)
    assert service.end() == 0


def test_key_material_never_reaches_the_log(start: Starter) -> None:
    service = start()
    alarm = service.wait_for("alarm")
    assert alarm["pad"] == "<32 bytes>"
    assert alarm["level"] == "warning"
    assert alarm["fact_event"] == "taken name"


def test_the_process_is_hardened(start: Starter) -> None:
    service = start()
    service.wait_for("ready")
    limits = Path(f"/proc/{service.process.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    assert "Umask:\t0077" in status


def test_sigint_stops_as_well(start: Starter) -> None:
    service = start()
    service.wait_for("ready")
    service.process.send_signal(signal.SIGINT)
    assert service.end() == 0


@pytest.mark.parametrize("behaviour", ["slow-stop", "blocked"])
def test_a_role_that_hangs_is_ended_within_five_seconds(start: Starter, behaviour: str) -> None:
    service = start(behaviour)
    service.wait_for("ready")
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.end() == 1
    assert time.monotonic() - began < 5.5
    text = "\n".join(service.lines)
    assert "does not stop" in text or "Timeout" in text
    assert "small_role.py" in text or behaviour == "slow-stop"


def test_a_failing_task_stops_the_service(start: Starter) -> None:
    service = start("failing-task")
    assert service.end() == 1
    failed = next(event for event in service.events() if event["event"] == "the service failed")
    assert "ArithmeticError: something broke" in failed["exception"]
    assert "in task failing" in failed["exception"]


def test_a_role_that_ends_by_itself_is_a_failure(start: Starter) -> None:
    service = start("ends")
    assert service.end() == 1
    assert "without having been asked" in "".join(service.lines)


def test_a_start_error_is_one_line(start: Starter) -> None:
    service = start("start-error")
    assert service.end() == 69
    assert "run keyhaul pki csr" in service.events()[-1]["reason"]
    assert "Traceback" not in "".join(service.lines)


def test_an_address_in_use_is_one_line(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = start(metrics=f"127.0.0.1:{taken.getsockname()[1]}")
        assert service.end() == 69
    assert "is another process serving there" in service.events()[-1]["reason"]
    assert "Traceback" not in "".join(service.lines)


def test_metrics_are_for_loopback_only(start: Starter) -> None:
    service = start(metrics="192.0.2.1:9443")
    assert service.end() in (69, 78)
    assert "loopback" in "".join(service.lines)


def test_a_second_service_on_the_socket_is_refused(start: Starter) -> None:
    first = start()
    first.wait_for("ready")
    second = start()
    assert second.end() == 69
    assert "another process answers" in second.events()[-1]["reason"]


def test_a_socket_left_by_a_dead_service_is_replaced(start: Starter, tmp_path: Path) -> None:
    first = start()
    first.wait_for("ready")
    first.process.kill()
    first.end()
    assert (tmp_path / "run/socket").is_socket()
    start().wait_for("ready")


def test_a_socket_directory_that_others_may_write_is_refused(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    service = start()
    assert service.end() == 69
    assert "chmod 700" in service.events()[-1]["reason"]


def test_a_file_in_the_way_of_the_socket_is_not_removed(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run/socket").write_text("mine")
    assert start().end() == 69
    assert (tmp_path / "run/socket").read_text() == "mine"


def test_deep_directories_do_not_matter_for_the_socket(start: Starter, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["deep" * 10] * 4)
    deep.mkdir(parents=True)
    start(directory=deep).wait_for("ready")
    assert (deep / "run/socket").is_socket()


def test_configuration_errors_come_all_at_once(start: Starter, tmp_path: Path) -> None:
    service = start(more='[unknown]\na = 1\n[store]\nsealer = "magic"\n')
    assert service.end() == 78
    text = "\n".join(service.lines)
    assert "unknown" in text
    assert "sealer" in text
    assert "path: missing" in text
    assert "Traceback" not in text


def test_the_configuration_of_another_role_is_refused(tmp_path: Path, start: Starter) -> None:
    service = start(more="")
    service.wait_for("ready")
    config = (tmp_path / "config.toml").read_text().replace('"ckms"', '"akms"')
    other = Service(tmp_path, "serve", config, {})
    assert other.end() == 78
    assert "is not the role to serve" in "".join(other.lines)


async def test_the_store_of_a_service_is_seen_over_its_socket(start: Starter, tmp_path: Path) -> None:
    service = start("store", more=STORE)
    service.wait_for("ready")
    state = await ask(tmp_path / "run/socket", "store")
    assert [(store["schema"], store["version"]) for store in state["stores"]] == [("ckms", 1)]
    service.process.send_signal(signal.SIGTERM)
    assert service.end() == 0


def test_a_store_that_cannot_be_opened_is_one_line(start: Starter, tmp_path: Path) -> None:
    first = start("store", more=STORE)
    first.wait_for("ready")
    first.process.send_signal(signal.SIGTERM)
    first.end()
    (tmp_path / "store.key").write_text("00" * 32)
    second = start("store", more=STORE)
    assert second.end() == 75
    assert "does not open with the key" in second.events()[-1]["reason"]
    assert "Traceback" not in "".join(second.lines)


def test_the_service_manager_hears_of_it(start: Starter, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        os.chdir(tmp_path)
        manager.bind("notify")
        manager.settimeout(20)
        service = start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1"
        service.process.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert service.end() == 0
