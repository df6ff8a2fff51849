"""`keyhaul topology|path|whatif|node` over mutual TLS: what they print, their documents, and how they fail."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from controller.admission.classes import CLASSES
from controller.admission.refusal import Reason, Refusal
from controller.command.connecting import session
from controller.command.path import CLASSES as OFFERED
from controller.command.places import Places
from controller.northbound.interface import PathAsKept, PathState
from controller.state import history
from controller.state.database import open_database
from controller.state.rollup import MINUTE, Key, Sample, Summary
from keyhaul.config.carrier import CarrierLink, CarrierNode, CarrierPlan, encode
from keyhaul.identity.names import Role
from tests.controller.command.conftest import Keyhaul
from tests.controller.command.standing import Standing
from tests.controller.northbound.scene import Scene


def test_the_links_are_shown_for_people_and_for_programs(keyhaul: Keyhaul) -> None:
    shown = keyhaul("topology")
    assert shown.code == 0
    head = "controller-16 leads in epoch 7 for 2 min 5 s, plan 1, 5 nodes, 5 of 5 links up, 2 demands"
    assert shown.words.startswith(head)
    assert "8-9 up QKD 10 k 900 / 0 100% 2.1% 0.35 ms 0" in shown.words
    document = keyhaul("topology", "--json").document
    assert document["status"]["links_up"] == 5
    assert [one["id"] for one in document["links"]] == ["2-8", "8-9", "8-16", "9-16", "9-14"]


def test_nodes_and_what_disagrees_are_shown(keyhaul: Keyhaul) -> None:
    assert "ckms-14 - yes DE tells of itself" in keyhaul("topology", "nodes").words
    assert "All is as planned" in keyhaul("topology", "disagreements").out
    assert keyhaul("topology", "disagreements", "--json").document["disagreements"] == []


def test_events_are_printed_one_a_line(keyhaul: Keyhaul, scene: Scene) -> None:
    first = scene.tell("link-down", "8-9")
    second = scene.tell(
        "paths-installed", "c3" * 16, paths=[["ckms-2", "ckms-8"], ["ckms-2", "ckms-9"]], source="ckms-2"
    )
    told = keyhaul("topology", "events", "--after", str(first - 1)).out.splitlines()
    assert [line.split()[0] for line in told] == [str(first), str(second)]
    assert told[1].endswith("paths-installed  c3c3c3c3  paths 2 > 8; 2 > 9, source 2")
    (document,) = keyhaul("topology", "events", "--after", str(first), "--json").out.splitlines()
    assert json.loads(document)["number"] == second


def test_the_past_of_a_link_is_shown(keyhaul: Keyhaul, scene: Scene) -> None:
    assert keyhaul("topology", "history", "--link", "9-16").out == "Nothing was measured then.\n"
    key = Key("9-16", "ckms-9", int(time.time() // 60) * 60)
    row = {key: Summary.of(Sample("9-16", "ckms-9", True, 2_000.0, 8e6, 0.0003, 0.021))}
    scene.database.transact(lambda c: history.write(c, MINUTE, 1, row))
    assert "9 100% 2 k 2 k 2 k 8 M 8 M 0.3 ms 2.1% 2.1%" in keyhaul("topology", "history", "--link", "9-16").words
    document = keyhaul("topology", "history", "--link", "9-16", "--json").document
    assert [one["samples"] for one in document["periods"]] == [1]
    assert "history is that of a --link" in keyhaul("topology", "history").error


def test_demands_are_listed_with_their_paths(keyhaul: Keyhaul) -> None:
    words = keyhaul("path", "list").words
    assert "b2b2b2b2 gold 800 primary: 2 > 8 > 9 > 14 installed 12 s backup: 2 > 8 > 16 > 9 > 14 installed" in words
    over = keyhaul("path", "list", "--class", "bronze", "--node", "16", "--json").document["demands"]
    assert [one["id"] for one in over] == ["a1" * 16]
    assert keyhaul("path", "list", "--class", "split").out == "There are no such demands.\n"


def test_what_is_promised_is_shown(keyhaul: Keyhaul) -> None:
    assert "8-9 8 10 kbit/s 900 bit/s 9% b2b2b2b2 900" in keyhaul("path", "reservations").words


def test_a_path_is_explained(keyhaul: Keyhaul) -> None:
    told = keyhaul("path", "explain", "2", "ckms-14", "--class", "gold", "--rate", "100", "--verbose")
    assert told.code == 0
    assert told.words.startswith(
        "gold from 2 to 14 at 100 bit/s: granted primary: 2 > 8 > 9 > 14 backup: 2 > 8 > 16 > 9 > 14"
    )
    assert "share the links 2-8, 9-14." in told.words
    assert "8-9 8 9" in told.words
    refused = keyhaul("path", "explain", "2", "14", "--without-link", "8-9", "--hops", "3")
    assert refused.words.startswith(
        "bronze from 2 to 14: refused: no path keeps to the constraints: every one has excluded links or too many hops"
    )
    assert "In the way, each" in refused.words
    assert "2 > 8 > 9 > 14 breaks a constraint 8-9 from 8: the link is excluded" in refused.words
    split = keyhaul("path", "explain", "2", "14", "--class", "split", "--json").document
    assert split["refusal"] == {"reason": "there are too few paths without a common node", "paths_found": 1}


def test_what_if_says_who_is_affected_and_fails_if_somebody_is_lost(keyhaul: Keyhaul) -> None:
    told = keyhaul("whatif", "--link", "8-9")
    assert told.code == 0
    assert "2 of 2 demands would be affected: 1 weakened: go on, with less than their class demands" in told.words
    assert "weakened gold 800 2 > 14 2 > 8 > 16 > 9 > 14 there is no second path" in told.words
    lost = keyhaul("whatif", "--node", "9")
    assert lost.code == 1
    assert "Access nodes would be apart: 2 | 14" in lost.out
    assert keyhaul("whatif", "--risk-group", "bridge", "--json").document["fates"]["lost"] == 2


def test_a_changed_plan_is_rehearsed(keyhaul: Keyhaul, scene: Scene, tmp_path: Path) -> None:
    plan = CarrierPlan(
        network="changed",
        nodes=tuple(
            CarrierNode(id=node.id, target=node.target or "127.0.0.1:9339", access=node.access, jurisdiction="DE")
            for node in scene.network.nodes
        ),
        links=tuple(
            CarrierLink(
                id=link.id,
                a=link.a,
                b=link.b,
                rate=link.rate,
                capacity=link.capacity,
                suites=("otp", "aes-256-gcm"),
                risk_groups=tuple(link.risk_groups),
            )
            for link in scene.network.links
            if link.id != "8-16"
        ),
    )
    file = tmp_path / "plan.json"
    file.write_bytes(encode(plan))
    told = keyhaul("whatif", "--description", file)
    assert told.code == 0
    assert "removed link 8-16" in told.words
    assert "1 weakened" in told.words
    file.write_text("{")
    wrong = keyhaul("whatif", "--description", file)
    assert wrong.code == 78
    assert "is no plan of a network" in wrong.error


def test_an_operator_quarantines_and_a_viewer_may_not(keyhaul: Keyhaul, stands: Standing, scene: Scene) -> None:
    viewer = stands.identity[Role.VIEWER]
    refused = keyhaul("node", "quarantine", "16", "--reason", "seal broken", "--identity", viewer)
    assert refused.code == 1
    assert "viewer may not call network.quarantine" in refused.error
    done = keyhaul("node", "quarantine", "16", "--reason", "seal broken")
    crossed = "Keys of 2 demands crossed it; their access nodes burn them."
    assert done.out == f"ckms-16 is in quarantine. `keyhaul node release 16` ends it.\n{crossed}\n"
    assert scene.quarantined() == {"ckms-16": "seal broken"}
    again = keyhaul("node", "quarantine", "16", "--reason", "seal broken", "--json").document
    assert again == {"node": "ckms-16", "quarantined": True, "exposed": 2}
    assert keyhaul("node", "release", "16").out == "ckms-16 may be in paths again.\n"
    assert keyhaul("node", "release", "16", "--json").document == {"node": "ckms-16", "was_quarantined": False}


def test_one_of_several_controllers_is_asked_that_answers(keyhaul: Keyhaul, stands: Standing) -> None:
    both = ["--controller", "controller-17@127.233.1.17:9", "--controller", f"controller-16@{stands.listener.address}"]
    told = keyhaul("topology", *both, "--identity", stands.identity[Role.VIEWER], network=False)
    assert told.code == 0
    assert told.out.startswith("controller-16 leads")


def test_failures_say_what_to_do(keyhaul: Keyhaul, stands: Standing, tmp_path: Path) -> None:
    viewer = ["--identity", str(stands.identity[Role.VIEWER])]
    (tmp_path / "network.json").write_text(json.dumps({"services": [{"role": "aaa", "id": "a", "address": "b"}]}))
    (tmp_path / "none").mkdir()
    for arguments, code, error in (
        ((), 2, "say where the controller is"),
        (("--network", tmp_path), 1, "has no controller: give a node of its description the role controller"),
        (("--network", tmp_path / "none"), 1, "lay a network out"),
        (("--controller", "controller-16@127.233.1.17:9", *viewer), 69, "controller-16 cannot be reached"),
        (("--controller", "16@127.233.1.17:9", *viewer), 2, "e.g. controller-16@10.0.0.16:7446"),
        (("--controller", "controller-16@127.233.1.17:9"), 2, "--controller needs --identity"),
        (("--controller", "controller-16@127.233.1.17:9", "--identity", tmp_path), 1, "certificate.pem cannot be read"),
        (
            ("--controller", f"controller-16@{stands.listener.address}", "--identity", stands.identity[Role.SALES]),
            1,
            "show the certificate of a viewer or an operator",
        ),
    ):
        told = keyhaul("topology", *arguments, network=False)
        assert told.code == code, arguments
        assert error in told.error
        assert "Traceback" not in told.error
    assert "there is no node ckms-99" in keyhaul("path", "explain", "2", "99").error
    assert "there is no 8-99" in keyhaul("whatif", "--link", "8-99").error
    assert "say what fails" in keyhaul("whatif").error
    assert "go with events" in keyhaul("topology", "links", "--follow").error


def test_one_look_at_the_network_fits_the_terminal(keyhaul: Keyhaul, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        told = keyhaul("top", "--once")
        assert told.code == 0
        assert all(len(line) <= columns for line in told.out.splitlines())
        assert "8-9" in told.out
        assert "primary: 2>8>9>14" in told.words
    assert keyhaul("top", "--once", "--json").document["status"]["links_up"] == 5


def test_the_classes_to_choose_from_are_those_that_there_are() -> None:
    assert set(OFFERED) == set(CLASSES)


def test_help_loads_neither_transport_nor_rich() -> None:
    script = (
        "import sys\n"
        "from keyhaul.command.main import run\n"
        "for command in ('topology', 'path', 'whatif', 'node', 'top'):\n"
        "    run([command, '--help'])\n"
        "print(sorted({'OpenSSL', 'rich', 'msgspec', 'sqlalchemy', 'grpc'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert done.stdout.count("Usage: keyhaul") == 5


def test_paths_that_drain_are_shown_as_such(keyhaul: Keyhaul, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = scene.kept[0]
    drains = PathAsKept(scene.kept[1].paths[1].path, 0, PathState.DRAINING)
    monkeypatch.setattr(scene, "kept", [replace(kept, paths=(*kept.paths, drains))])
    listed = keyhaul("path", "list").words
    assert "backup: 2 > 8 > 16 > 9 > 14 installed 12 s primary: 2 > 8 > 16 > 9 > 14 draining" in listed
    monkeypatch.setattr(scene, "kept", [replace(kept, paths=(drains,), refusal=Refusal(Reason.NO_PATH))])
    told = keyhaul("top", "--once").words
    assert "1 demand (1 without a path)" in told
    assert "primary: 2>8>16>9>14 draining" in told
    assert "no path" in told


async def test_a_view_follows_the_leader_and_stays_with_who_answers(stands: Standing, tmp_path: Path) -> None:
    database = open_database("sqlite:///controller.db", tmp_path)
    other = Scene(database)
    other.leads = False
    standby = Standing(other, stands.pki, tmp_path / "other", "127.233.2.17", "17")
    controllers = (("controller-16", stands.listener.address), ("controller-17", standby.listener.address))
    where = Places(controllers, stands.identity[Role.VIEWER])
    try:
        async with session(where) as there:
            assert (await there.follow()).leads
            assert there.name == "controller-16"
            stands.scene.leads, other.leads = False, True
            assert (await there.follow()).led_s == 125.0
            assert there.name == "controller-17"
            other.leads = False
            status = await there.follow()
            assert (there.name, status.leads) == ("controller-17", False)
            standby.close()
            assert not (await there.follow()).leads
            assert there.name == "controller-16"
    finally:
        stands.scene.leads = True
        standby.close()
        database.close()
