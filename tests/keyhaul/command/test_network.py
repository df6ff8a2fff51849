"""`keyhaul network` and `keyhaul link` with real processes: up, cut, died, down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from keyhaul.command.init import initialise
from keyhaul.command.laboratory import processes
from keyhaul.command.laboratory.files import Laboratory
from keyhaul.command.link import link
from keyhaul.command.network import network
from keyhaul.command.store import store
from tests.laboratory import ROOT, SMALL, keyhaul

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("command-network")]


def state(directory: Path) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(network, ["status", str(directory), "--json"])
    return {service["id"]: service for service in json.loads(result.stdout)["services"]}


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary directory whose path leaves room for the names of Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="kn-", dir="/tmp") as scratch:
        yield Path(scratch)


def elsewhere(scratch: Path) -> Path:
    """The same network under loopback addresses and paths of its own."""
    base = scratch / "n"
    number = int.from_bytes(os.urandom(2), "big") % (32 * 256)
    initialise(SMALL, base, loopback=f"127.{128 + number // 256}.{number % 256}.0")
    return base


def foreground(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "keyhaul.command.main", "network", "up", str(directory), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    found = next((line for line in process.stdout if text in line), None)
    assert found is not None, f"it ended without saying {text!r}"
    return found


@pytest.fixture(scope="module")
def directory(laid_out: Path) -> Iterator[Path]:
    done = keyhaul("network", "up", laid_out, "--detach")
    assert "Everything serves after" in done.stdout
    yield laid_out
    pids = [service["pid"] for service in state(laid_out).values() if service["pid"]]
    done = keyhaul("network", "down", laid_out)
    assert "The network is down" in done.stdout
    assert not any(processes.of(pid) for pid in pids)


def test_everything_serves_when_up_returns(directory: Path) -> None:
    services = state(directory)
    assert {service["state"] for service in services.values()} == {"serving"}
    assert all(service["links_up"] == service["links"] for service in services.values())
    assert services["ckms-m"]["links"] == 2
    table = CliRunner().invoke(network, ["status", str(directory)])
    assert f"{len(services)} of {len(services)} services serve fully" in table.stdout


def test_each_service_is_a_process_of_its_own_with_its_own_name(directory: Path) -> None:
    services = state(directory)
    assert len({service["pid"] for service in services.values()}) == len(services)
    titles = Path(f"/proc/{services['ckms-m']['pid']}/cmdline").read_bytes()
    assert titles.startswith(b"keyhaul serve ckms-m"[: len(titles.rstrip(b"\0"))])
    assert Path(f"/proc/{services['ckms-m']['pid']}/comm").read_text().strip() == "ckms-m"


def test_a_second_up_is_refused(directory: Path) -> None:
    done = keyhaul("network", "up", directory, "--detach", check=False)
    assert (done.returncode, "is up already" in done.stderr) == (1, True)


def test_links_are_listed_and_shown_at_both_ends(directory: Path) -> None:
    listed = CliRunner().invoke(link, ["list", "--network", str(directory), "--json"])
    ends = json.loads(listed.stdout)["links"]
    names = Laboratory.read(directory).links
    assert sorted(end["link"] for end in ends) == sorted(2 * names)
    shown = json.loads(CliRunner().invoke(link, ["show", names[0], "--network", str(directory), "--json"]).stdout)
    assert len(shown["ends"]) == len(shown["modules"]) == 2
    assert CliRunner().invoke(link, ["list", "--network", str(directory)]).exit_code == 0
    told = CliRunner().invoke(link, ["show", names[0], "--network", str(directory)]).stdout
    assert [told.count(label) for label in ("  state ", "  pad for payload ", "  key rate ")] == [2, 2, 2]
    assert "_total" not in told


def test_a_link_is_cut_degraded_and_restored_at_both_ends(directory: Path) -> None:
    name = Laboratory.read(directory).links[0]

    def modules() -> list[bool]:
        shown = CliRunner().invoke(link, ["show", name, "--network", str(directory), "--json"])
        return [module["cut"] for module in json.loads(shown.stdout)["modules"]]

    def states() -> list[str]:
        listed = CliRunner().invoke(link, ["list", "--network", str(directory), "--json"])
        return [end["state"] for end in json.loads(listed.stdout)["links"] if end["link"] == name]

    assert CliRunner().invoke(link, ["cut", name, "--network", str(directory)]).exit_code == 0
    assert modules() == [True, True]
    assert states() == ["cut", "cut"]
    assert CliRunner().invoke(link, ["restore", name, "--network", str(directory)]).exit_code == 0
    degraded = CliRunner().invoke(link, ["degrade", name, "--qber", "0.04", "--network", str(directory), "--json"])
    assert len(json.loads(degraded.stdout)["services"]) == 2
    assert CliRunner().invoke(link, ["restore", name, "--network", str(directory)]).exit_code == 0
    assert modules() == [False, False]
    assert states() == ["up", "up"]
    assert CliRunner().invoke(link, ["degrade", name, "--network", str(directory)]).exit_code == 2


def test_a_link_that_nobody_knows_is_refused(directory: Path) -> None:
    for command in (["show", "x-y"], ["cut", "x-y"], ["protect", "x-y", "otp"]):
        result = CliRunner().invoke(link, [*command, "--network", str(directory)])
        assert (result.exit_code, "no service that answers knows" in result.stderr) == (1, True)


def test_a_protection_changes_without_restart(directory: Path) -> None:
    config = directory / "nodes/m/ckms/config.toml"

    def suites() -> set[str]:
        listed = CliRunner().invoke(link, ["list", "--config", str(config), "--json"])
        return {end["suite"] for end in json.loads(listed.stdout)["links"] if end["link"] == "a-m"}

    changed = CliRunner().invoke(link, ["protect", "a-m", "otp", "aes-256-gcm", "--network", str(directory)])
    assert changed.exit_code == 0, changed.output
    end = time.monotonic() + 20
    while suites() != {"otp"}:
        assert time.monotonic() < end
    refused = CliRunner().invoke(link, ["protect", "a-m", "rot13", "--network", str(directory)])
    assert refused.exit_code == 1
    for senseless in (["a-m"], ["a-m", "otp", "--reset"]):
        assert CliRunner().invoke(link, ["protect", *senseless, "--network", str(directory)]).exit_code == 2
    shown = CliRunner().invoke(link, ["show", "a-m", "--network", str(directory)]).stdout
    assert shown.count("otp, aes-256-gcm (set at run time; configured: aes-256-gcm, otp)") == 2
    assert CliRunner().invoke(link, ["protect", "a-m", "--reset", "--network", str(directory)]).exit_code == 0
    while suites() != {"aes-256-gcm"}:
        assert time.monotonic() < end
    assert "set at run time" not in CliRunner().invoke(link, ["show", "a-m", "--network", str(directory)]).stdout


def test_the_store_of_a_running_service_is_shown_and_not_verified(directory: Path) -> None:
    config = str(directory / "nodes/m/ckms/config.toml")
    shown = json.loads(CliRunner().invoke(store, ["status", "--config", config, "--json"]).stdout)
    assert shown["running"]
    assert shown["stores"][0]["schema"] == "ckms"
    assert CliRunner().invoke(store, ["verify", "--config", config]).exit_code == 1


def test_a_service_that_dies_is_started_again(directory: Path) -> None:
    before = state(directory)["ckms-d"]["pid"]
    os.kill(before, signal.SIGKILL)
    end = time.monotonic() + 40
    while (now := state(directory)["ckms-d"])["pid"] in (None, before) or now["state"] != "serving":
        assert time.monotonic() < end, now
    assert "ckms-d was ended by SIGKILL" in (directory / "logs/network.log").read_text()


def test_a_laid_out_network_that_is_up_is_not_replaced(directory: Path) -> None:
    result = CliRunner().invoke(network, ["init", str(SMALL), "--out", str(directory), "--force"])
    assert (result.exit_code, "stop it first" in result.stderr) == (1, True)


def test_up_in_the_foreground_stops_everything_when_interrupted(short: Path) -> None:
    other = elsewhere(short)
    with foreground(other, "--role", "qkdm") as process:
        assert "Everything serves" in wait_for(process, "Everything serves")
        pids = [service["pid"] for service in state(other).values() if service["pid"]]
        assert len(pids) == sum(service.role == "qkdm" for service in Laboratory.read(other).services)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    assert not any(processes.of(pid) for pid in pids)
    assert CliRunner().invoke(network, ["status", str(other)]).exit_code == 1


def test_services_end_with_a_supervisor_that_is_killed(short: Path) -> None:
    other = elsewhere(short)
    with foreground(other, "--role", "qkdm", "--node", "m") as process:
        wait_for(process, "Everything serves")
        (pid,) = [service["pid"] for service in state(other).values() if service["pid"]]
        process.kill()
        process.wait()
    end = time.monotonic() + 10
    while processes.of(pid):
        assert time.monotonic() < end


def test_without_restart_a_death_ends_it_all(short: Path) -> None:
    other = elsewhere(short)
    with foreground(other, "--role", "qkdm", "--node", "m", "--node", "d", "--no-restart") as process:
        wait_for(process, "Everything serves")
        pids = [service["pid"] for service in state(other).values() if service["pid"]]
        os.kill(pids[0], signal.SIGKILL)
        assert "was ended by SIGKILL" in wait_for(process, "was ended by SIGKILL")
        assert process.wait(15) == 1
    assert not any(processes.of(pid) for pid in pids)


def test_a_service_that_cannot_start_is_reported_with_its_log(short: Path) -> None:
    other = elsewhere(short)
    config = other / "nodes/m/qkdm/config.toml"
    config.write_text(config.read_text().replace("[operations]", "[operations]\nwrong = 1"))
    done = keyhaul("network", "up", other, "--role", "qkdm", "--node", "m", "--detach", check=False)
    assert done.returncode == 1
    assert "qkdm-m ended with exit code 78" in done.stderr
    assert "[operations] wrong: unknown" in done.stderr


def test_filters_that_leave_nothing_are_wrong_usage(laid_out: Path) -> None:
    assert CliRunner().invoke(network, ["up", str(laid_out), "--role", "router"]).exit_code == 2
