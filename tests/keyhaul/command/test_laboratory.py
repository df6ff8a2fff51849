"""The parts of `keyhaul network`: what serves fully, whose process it is, which order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keyhaul.command.laboratory import probe, processes
from keyhaul.command.laboratory.files import Laboratory, NoNetwork
from keyhaul.command.laboratory.processes import Process


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        (None, "does not answer"),
        ({"ready": False}, "not ready"),
        ({"ready": True}, ""),
        ({"ready": True, "links": {"1-2": True}}, ""),
        ({"ready": True, "links": {"1-2": True, "2-3": False}}, "1 of 2 links down"),
        ({"ready": True, "links": {"1-2": True}, "connected": {"aaa-dc": False}}, "not connected to aaa-dc"),
        ({"ready": True, "links": {}, "connected": {}}, ""),
        ({"ready": True, "links": {"1-2": True}, "open": False}, "waits for its AKMS"),
        ({"ready": True, "links": {"1-2": True}, "open": True}, ""),
        ({"ready": True, "nodes": {"planned": 3, "telling": 1}, "links": {}}, "2 of 3 CKMSs do not tell"),
        ({"ready": True, "nodes": {"planned": 3, "telling": 3}, "links": {"found": 1, "missing": 1}}, ""),
    ],
)
def test_what_is_missing_until_a_service_serves_fully(facts: dict[str, Any] | None, missing: str) -> None:
    assert probe.missing(facts) == missing


def test_links_are_told_by_each_end_and_by_who_sees_both() -> None:
    assert probe.links({"links": {"1-2": True, "2-3": False}}) == (1, 2)
    assert probe.links({"nodes": {}, "links": {"found": 3, "missing": 1, "unknown": 2}}) == (3, 6)
    assert probe.links({"nodes": {}, "links": {}}) == (0, 0)
    assert probe.links({}) == (0, 0)


def test_a_health_page_that_does_not_answer() -> None:
    assert probe.health("127.0.0.1:1") is None


def test_a_process_is_known_by_id_and_start(tmp_path: Path) -> None:
    own = processes.of(os.getpid())
    assert own is not None
    assert own.alive
    assert (own.memory() or 0) > 1_000_000
    processes.write(tmp_path / "pid", own)
    assert processes.read(tmp_path / "pid") == own
    stranger = Process(own.pid, own.started + 1)
    assert not stranger.alive
    processes.write(tmp_path / "pid", stranger)
    assert processes.read(tmp_path / "pid") is None
    stranger.send(signal.SIGKILL)


@pytest.mark.parametrize("content", ["", "x y", "1", "99999999 1"])
def test_a_pid_file_with_nonsense_names_no_process(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    assert processes.read(tmp_path / "pid") is None


def test_who_ignores_sigterm_is_killed() -> None:
    program = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = processes.of(child.pid)
        assert process is not None
        assert processes.stop([process], 0.2) == [process]
        assert child.wait(10) == -signal.SIGKILL
    assert processes.stop([process], 0.2) == []


def entry(role: str, node: str) -> dict[str, str]:
    place = f"/tmp/{role}-{node}"
    return {
        "role": role,
        "node": node,
        "id": f"{role}-{node}",
        "metrics": "127.0.0.1:1",
        "config": f"{place}/config.toml",
        "socket": f"{place}/socket",
    }


def test_services_start_in_the_order_in_which_they_need_each_other(tmp_path: Path) -> None:
    services = [entry(*one) for one in (("ukms", "1"), ("ckms", "10"), ("akms", "2"), ("ckms", "9"), ("qkdm", "1"))]
    (tmp_path / "network.json").write_text(json.dumps({"services": services}))
    assert [service.id for service in Laboratory.read(tmp_path).services] == [
        "qkdm-1",
        "ckms-9",
        "ckms-10",
        "akms-2",
        "ukms-1",
    ]


@pytest.mark.parametrize("content", [None, "", "[]", '{"services": [{}]}', '{"services": 1}'])
def test_a_directory_without_a_network_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "network.json").write_text(content)
    with pytest.raises(NoNetwork, match=r"network init"):
        Laboratory.read(tmp_path)
