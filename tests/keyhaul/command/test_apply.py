"""`network apply` on a network that is not up: what is new is made, what is there stays, whenever it dies."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from keyhaul.command.init import initialise, read_description
from keyhaul.command.laboratory.applying import BEGUN, Applying
from keyhaul.command.laboratory.running import NotApplied
from keyhaul.command.network import network
from keyhaul.config.carrier import load as load_plan
from keyhaul.config.loader import load
from keyhaul.config.services import CkmsConfig, QkdmConfig
from keyhaul.identity import secretfile
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_private, load_link_public
from keyhaul.identity.names import NodeId, Role, ServiceName
from tests.laboratory import with_controller

SMALL = with_controller((Path(__file__).parents[2] / "network/small.toml").read_text())
E = '[[node]]\nname = "e"\nnumber = 7\nroles = ["ckms"]\n\n'
LINKS = "".join(f'[[link]]\na = "{a}"\nb = "{b}"\nkm = 1\nskr = 100_000\n\n' for a, b in ("ae", "eb"))
BIGGER = SMALL.replace("[[link]]", E + "[[link]]", 1).replace("[[customer]]", LINKS + "[[customer]]", 1)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("a")
    (scratch / "small.toml").write_text(SMALL)
    initialise(scratch / "small.toml", scratch / "n", loopback="127.232.7.0")
    return scratch / "n"


@pytest.fixture
def out(laid_out: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(laid_out, tmp_path / "n"))


def apply(out: Path, text: str, *options: str) -> Result:
    description = out.parent / "changed.toml"
    description.write_text(text)
    return CliRunner().invoke(network, ["apply", str(description), "--out", str(out), *options])


def content(out: Path) -> dict[str, str]:
    """What each file holds; the lock is no content."""
    return {
        str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.name != "apply.lock"
    }


def carrier(out: Path, node: str) -> CkmsConfig:
    return load(out / "nodes" / node / "ckms/config.toml", CkmsConfig)


def test_what_is_new_is_made_and_what_is_there_stays(out: Path) -> None:
    before = content(out)
    result = apply(out, BIGGER)
    assert result.exit_code == 0, result.output
    assert "+ node e" in result.output
    assert "The network is not up" in result.output
    after = content(out)
    changed = {name for name, digest in before.items() if after.get(name) != digest}
    configs = {f"nodes/{node}/{role}/config.toml" for node in "ab" for role in ("ckms", "qkdm")}
    configs |= {f"nodes/{node}/ckms/config.toml" for node in "md"}
    assert changed <= configs | {"nodes/dc/controller/plan.json", "network.json", "network.toml"}
    assert changed >= {"nodes/a/ckms/config.toml", "nodes/b/qkdm/config.toml", "nodes/dc/controller/plan.json"}
    for file in out.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600), file

    plan, _ = load_plan(out / "nodes/dc/controller/plan.json")
    assert [node.id for node in plan.nodes] == ["ckms-a", "ckms-m", "ckms-d", "ckms-b", "ckms-e"]
    assert [node.target for node in plan.nodes if node.id == "ckms-e"] == ["127.232.7.7:9339"]
    config = carrier(out, "e")
    name = ServiceName("test.example", Role.CKMS, NodeId("e"))
    here = out / "nodes/e/ckms"
    identity = ServiceIdentity.load(config.identity, here, name)
    own = identity.link_key().public_key().public_bytes_raw()
    for node, link in (("a", "a-e"), ("b", "e-b")):
        there = out / "nodes" / node / "ckms"
        assert load_link_public(there / f"links/{link}/neighbour.pem").public_bytes_raw() == own
        theirs = load_link_private(there / "link-key.pem").public_key().public_bytes_raw()
        assert load_link_public(here / f"links/{link}/neighbour.pem").public_bytes_raw() == theirs
        assert (there / f"links/{link}/bootstrap").read_text() == (here / f"links/{link}/bootstrap").read_text()
    assert config.controller is not None
    pinned = load_link_public(here / config.controller.server[0].statement_key).public_bytes_raw()
    signing = load_link_private(out / "nodes/dc/controller/statement-key.pem").public_key().public_bytes_raw()
    assert pinned == signing
    ports = [module.address for module in load(out / "nodes/a/qkdm/config.toml", QkdmConfig).module]
    assert len(set(ports)) == len(ports) == 4

    again = apply(out, BIGGER)
    assert (again.exit_code, again.output) == (0, "Nothing to do: the network is what the description says.\n")
    assert content(out) == after


def test_what_is_gone_goes_and_its_keys_are_kept_aside(out: Path) -> None:
    before = content(out)
    assert apply(out, BIGGER).exit_code == 0
    key = (out / "nodes/e/ckms/key.pem").read_text()
    result = apply(out, SMALL)
    assert result.exit_code == 0, result.output
    after = content(out)
    left = {name for name in after if name not in before}
    assert {name.split("/")[0] for name in left} == {"removed", "authorities"}
    assert [file.read_text() for file in out.glob("removed/e-*/ckms/key.pem")] == [key]
    same = {name for name in before if after[name] == before[name]}
    assert before.keys() - same <= {"network.json", *(f"nodes/{node}/ckms/config.toml" for node in "abmd")}
    assert [link.id for link in carrier(out, "a").link] == ["a-m", "a-d"]
    assert len(carrier(out, "a").path) == 2
    back = apply(out, BIGGER)
    assert back.exit_code == 0, back.output
    assert (out / "nodes/e/ckms/key.pem").read_text() != key


def test_what_somebody_changed_by_hand_beside_links_and_paths_stays(out: Path) -> None:
    file = out / "nodes/a/ckms/config.toml"
    file.write_text(file.read_text().replace('socket = "socket"', 'socket = "socket"\nlog_level = "debug"'))
    assert apply(out, BIGGER).exit_code == 0
    assert carrier(out, "a").operations.log_level == "debug"
    assert [link.id for link in carrier(out, "a").link] == ["a-m", "a-d", "a-e"]


def test_a_dry_run_tells_and_changes_nothing(out: Path) -> None:
    before = content(out)
    result = apply(out, BIGGER.replace('b = "m"\nkm = 20', 'b = "m"\nkm = 20\nenabled = false'), "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["applied"] is None
    assert [(one["what"], one["id"], one["change"], one["fields"]) for one in found["changes"]] == [
        ("node", "e", "added", {}),
        ("link", "a-m", "changed", {"enabled": [True, False]}),
        ("link", "a-e", "added", {}),
        ("link", "e-b", "added", {}),
    ]
    assert content(out) == before
    assert "apply without --dry-run" in apply(out, BIGGER, "--dry-run").output


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (lambda text: text.replace("number = 3\n", "number = 33\n"), 1, "refused: number"),
        (lambda text: text.replace('id = "first-west-2"', 'id = "first-west-9"'), 1, "keyhaul aaa import"),
        (lambda text: text.replace("km = 1\n", "km = 0\n"), 78, "km: 0 is too little"),
        (lambda text: text + "[", 78, "is not TOML"),
    ],
)
def test_a_description_that_cannot_be_applied_changes_nothing(
    out: Path, spoil: Callable[[str], str], code: int, says: str
) -> None:
    before = content(out)
    result = apply(out, spoil(BIGGER))
    assert (result.exit_code, says in result.output) == (code, True), result.output
    assert content(out) == before


def test_a_directory_without_a_description_is_refused(tmp_path: Path) -> None:
    result = apply(tmp_path, SMALL)
    assert result.exit_code == 1
    assert "it is no network" in result.output


def test_a_configuration_that_is_broken_is_named_and_nothing_changes(out: Path) -> None:
    file = out / "nodes/m/ckms/config.toml"
    file.write_text("[")
    before = content(out)
    result = apply(out, BIGGER)
    assert (result.exit_code, str(file) in result.output) == (78, True)
    assert content(out) == before


def test_what_was_begun_is_ended_by_whatever_is_applied_next(out: Path) -> None:
    before = content(out)
    assert killed_at(60, out, BIGGER)
    assert (out / BEGUN).exists()
    assert "somebody began" in apply(out, SMALL, "--dry-run").output
    assert apply(out, SMALL).exit_code == 0
    assert not (out / BEGUN).exists()
    assert not (out / "nodes/e").exists()
    after = content(out)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed <= {"network.json"}  # which has the path of the copy


def test_one_applies_at_a_time_and_on_what_is_there(out: Path) -> None:
    first, second = Applying(out, described(out, BIGGER)), Applying(out, described(out, BIGGER))
    with (out / "run/apply.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NotApplied, match="somebody is applying"):
            first.apply(1.0, lambda _: None)
    assert first.apply(1.0, lambda _: None).started == ("ckms-e", "qkdm-e")
    with pytest.raises(NotApplied, match="another description was applied"):
        second.apply(1.0, lambda _: None)


class Killed:
    """Ends the process at its n-th change of a file, as SIGKILL would: nothing is cleaned up."""

    def __init__(self, moment: int) -> None:
        self._left = moment

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                os._exit(9)
            return work(*arguments, **named)

        return wrapped


def killed_at(moment: int, out: Path, text: str) -> bool:
    """Apply in a process that dies at a moment; False: it got to its end before."""
    child = os.fork()
    if child == 0:
        try:
            killed = Killed(moment)
            secretfile.write = killed.before(secretfile.write)
            for method in ("rename", "unlink", "mkdir"):
                setattr(Path, method, killed.before(getattr(Path, method)))
            setattr(shutil, "rmtree", killed.before(shutil.rmtree))  # noqa: B010 - its type has more than a call
            Applying(out, described(out, text)).apply(1.0, lambda _: None)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def described(out: Path, text: str) -> Any:
    file = out.parent / "changed.toml"
    file.write_text(text)
    return read_description(file, "127.232.7.0")


def shape(out: Path) -> tuple[Any, ...]:
    """What must be the same after each way there, whatever was drawn at random."""
    files = {
        name
        for name in content(out)
        if not name.startswith(("authorities/", "removed/")) and not name.endswith(("network.json",))
    }
    services = [entry["id"] for entry in json.loads((out / "network.json").read_text())["services"]]
    paths = {}
    for node in sorted(path.name for path in (out / "nodes").iterdir()):
        if (out / "nodes" / node / "ckms").exists():
            config = carrier(out, node)
            paths[node] = [(path.destination, path.rank, path.next) for path in config.path], len(config.entry)
    plan = (out / "nodes/dc/controller/plan.json").read_bytes()
    return files, services, paths, plan, (out / "network.toml").read_bytes()


@pytest.mark.parametrize(
    ("first", "second", "stride"), [(SMALL, BIGGER, 13), (BIGGER, SMALL, 3)], ids=["added", "removed"]
)
def test_whenever_it_dies_applying_again_ends_right(
    laid_out: Path, tmp_path: Path, first: str, second: str, stride: int
) -> None:
    """Of the changes of files, one in `stride` is a moment to die at."""
    start = Path(shutil.copytree(laid_out, tmp_path / "start"))
    if first is not SMALL:
        assert apply(start, first).exit_code == 0
    former = shape(start)
    concerned = ("/e/", "/a-e/", "/e-b/", "crl")
    secrets = {
        name: digest
        for name, digest in content(start).items()
        if name.endswith((".pem", "bootstrap")) and not any(word in name for word in concerned)
    }
    whole = Path(shutil.copytree(start, tmp_path / "whole"))
    assert apply(whole, second).exit_code == 0
    moment = 1
    died = True
    while died:
        out = Path(shutil.copytree(start, tmp_path / f"{moment}"))
        died = killed_at(moment, out, second)
        for file in out.rglob("config.toml"):
            assert file.read_text().startswith("#")
        back = moment % 3 == 0  # to what there was, or on to what there shall be
        result = apply(out, first if back else second)
        assert result.exit_code == 0, result.output
        if died:
            assert shape(out) == (former if back else shape(whole))
        kept = content(out)
        assert [name for name in secrets if kept.get(name) != secrets[name]] == []
        for node, link in (("a", "a-e"), ("b", "e-b")):
            ends = [out / "nodes" / end / "ckms/links" / link / "bootstrap" for end in (node, "e")]
            assert len({end.read_text() if end.exists() else "" for end in ends}) == 1
        shutil.rmtree(out)
        moment += stride
    assert moment > 5 * stride
