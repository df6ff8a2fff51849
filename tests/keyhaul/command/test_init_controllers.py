"""A laid-out network with controllers: they, the CKMSs and the operator's tools have what they need to meet."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from keyhaul.agents import statements
from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.errors import Code
from keyhaul.agents.gnmi.failures import RefusedByTarget, TargetError
from keyhaul.agents.gnmi.peers import Peers
from keyhaul.agents.gnmi.target import Target, serve
from keyhaul.agents.signing import Verifier, sign
from keyhaul.command.init import initialise, read_description
from keyhaul.command.network import network
from keyhaul.command.pki import pki
from keyhaul.config.carrier import load as load_plan
from keyhaul.config.loader import load, resolve
from keyhaul.config.services import CkmsConfig, ControllerConfig, IdentitySection
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_private, load_link_public
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.identity.revocation import load_lists
from keyhaul.transport.tls import TlsFiles
from tests.keyhaul.agents.gnmi.carrier import Carrier

SMALL = (Path(__file__).parents[2] / "network/small.toml").read_text()
DOMAIN = "test.example"
_HOSTS = itertools.count(1)

TWO = (
    SMALL.replace('roles = ["aaa"]', 'roles = ["aaa", "controller"]')
    .replace("[[link]]", '[[node]]\nname = "spare"\nnumber = 101\nroles = ["controller"]\n\n[[link]]', 1)
    .replace("[modules]", '[controller]\ndatabase = "postgresql+psycopg://k@/k"\nhard_limit = 3600\n\n[modules]')
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("n")
    (scratch / "two.toml").write_text(TWO)
    initialise(scratch / "two.toml", scratch / "net")
    return scratch / "net"


def ckms(out: Path, node: str) -> tuple[CkmsConfig, Path]:
    directory = out / "nodes" / node / "ckms"
    return load(directory / "config.toml", CkmsConfig), directory


def controller(out: Path, node: str) -> tuple[ControllerConfig, Path]:
    directory = out / "nodes" / node / "controller"
    return load(directory / "config.toml", ControllerConfig), directory


def agent_files(out: Path, node: str) -> TlsFiles:
    config, directory = ckms(out, node)
    assert config.gnmi is not None
    assert config.gnmi.crl is not None
    return TlsFiles(
        directory / "classic-certificate.pem",
        directory / "classic-key.pem",
        resolve(directory, config.gnmi.trust),
        resolve(directory, config.gnmi.crl),
    )


def controller_files(out: Path, node: str) -> TlsFiles:
    config, directory = controller(out, node)
    return TlsFiles(
        directory / "classic-certificate.pem",
        directory / "classic-key.pem",
        resolve(directory, config.gnmi.trust),
    )


@asynccontextmanager
async def agent(files: TlsFiles) -> AsyncIterator[str]:
    """An agent that shows what `init` made for a CKMS."""
    host = f"127.231.{os.getpid() % 250}.{next(_HOSTS)}"
    with socket.socket() as probe:
        probe.bind((host, 0))
        address = f"{host}:{probe.getsockname()[1]}"
    target = Target(Carrier().tree, Peers(files, DOMAIN))
    server = await serve(target, address, files)
    try:
        yield address
    finally:
        await server.stop(None)
        await target.finish()


def test_each_ckms_knows_every_controller_and_what_it_signs_with(out: Path) -> None:
    for node in "amdb":
        config, directory = ckms(out, node)
        assert config.controller is not None
        assert config.controller.hard_limit == 3600
        assert [(one.service, one.address) for one in config.controller.server] == [
            ("controller-dc", "127.20.0.100:7446"),
            ("controller-spare", "127.20.0.101:7446"),
        ]
        for server in config.controller.server:
            held, place = controller(out, server.service.removeprefix("controller-"))
            private = load_link_private(resolve(place, held.statement_key))
            says = statements.Withdrawal(serials=())
            body = statements.Statement(v=1, node=f"ckms-{node}", epoch=1, serial=1, lifetime_s=60, says=says)
            pinned = load_link_public(resolve(directory, server.statement_key))
            assert Verifier([pinned]).verify(*sign([body], private)) == body
    keys = {
        load_link_private(out / f"nodes/{node}/controller/statement-key.pem").public_key().public_bytes_raw()
        for node in ("dc", "spare")
    }
    assert len(keys) == 2


def test_the_static_paths_stay(out: Path) -> None:
    assert {path.destination for path in ckms(out, "a")[0].path} == {"ckms-b"}
    assert ckms(out, "m")[0].entry


def test_each_controller_has_the_plan_and_an_identity_and_shares_the_database(out: Path) -> None:
    plans = set()
    for node in ("dc", "spare"):
        config, directory = controller(out, node)
        assert config.database == "postgresql+psycopg://k@/k"
        name = ServiceName(DOMAIN, Role.CONTROLLER, NodeId(node))
        assert ServiceIdentity.load(config.identity, directory, name).classic_certificate is not None
        plan, content = load_plan(resolve(directory, config.plan))
        plans.add(content)
        for planned in plan.nodes:
            section = ckms(out, planned.id.removeprefix("ckms-"))[0].gnmi
            assert section is not None
            assert section.address == planned.target
    assert len(plans) == 1


def test_statement_keys_and_the_plan_are_nowhere_else(out: Path) -> None:
    directories = {path.parent for name in ("statement-key.pem", "plan.json") for path in out.rglob(name)}
    assert directories == {out / "nodes/dc/controller", out / "nodes/spare/controller"}
    for path in out.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_whoever_is_no_ckms_has_nothing_of_controllers(out: Path) -> None:
    for role in ("ukms", "akms", "qkdm"):
        for path in out.glob(f"nodes/*/{role}/**/*"):
            assert "controller" not in path.name
            assert path.suffix != ".toml" or "controller" not in path.read_text()


def test_the_operators_tools_find_their_certificates(out: Path) -> None:
    listing = json.loads((out / "network.json").read_text())
    assert [one["id"] for one in listing["operators"]] == ["viewer-laboratory", "operator-laboratory"]
    for one in listing["operators"]:
        name = ServiceName.of(listing["domain"], one["id"])
        files = {field: one[field] for field in ("certificate", "key", "trust", "crl")}
        found = ServiceIdentity.load(IdentitySection(**files), out, name)
        assert found.signing_key()
        assert len(load_lists(Path(one["crl"]))) == 8


async def test_a_controller_meets_an_agent_with_what_was_made_for_them(out: Path) -> None:
    async with agent(agent_files(out, "m")) as address:
        for node in ("dc", "spare"):
            peer = ServiceName(DOMAIN, Role.CKMS, NodeId("m"))
            async with Client(address, peer, controller_files(out, node)) as client:
                found = await client.capabilities(deadline=10.0)
                assert found.gNMI_version == "0.8.0"


async def test_a_controller_takes_no_ckms_for_another(out: Path) -> None:
    async with agent(agent_files(out, "m")) as address:
        other = ServiceName(DOMAIN, Role.CKMS, NodeId("d"))
        async with Client(address, other, controller_files(out, "dc")) as client:
            with pytest.raises(TargetError):
                await client.capabilities(deadline=2.0)


async def test_an_agent_lets_no_ckms_in(out: Path) -> None:
    files = agent_files(out, "d")
    async with agent(agent_files(out, "m")) as address:
        peer = ServiceName(DOMAIN, Role.CKMS, NodeId("m"))
        async with Client(address, peer, TlsFiles(files.certificate, files.key, files.trust)) as client:
            with pytest.raises(RefusedByTarget) as caught:
                await client.capabilities(deadline=10.0)
    assert caught.value.code is Code.PERMISSION_DENIED


async def test_a_revoked_controller_is_let_in_no_more(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(TWO)
    out = tmp_path / "net"
    initialise(tmp_path / "two.toml", out)
    peer = ServiceName(DOMAIN, Role.CKMS, NodeId("m"))
    async with agent(agent_files(out, "m")) as address, Client(address, peer, controller_files(out, "dc")) as client:
        await client.capabilities(deadline=10.0)
        certificate = out / "nodes/dc/controller/classic-certificate.pem"
        done = CliRunner().invoke(
            pki, ["revoke", str(certificate), "--authorities", str(out / "authorities"), "--install", str(out)]
        )
        assert done.exit_code == 0, done.output
        with pytest.raises(RefusedByTarget) as caught:
            await client.capabilities(deadline=10.0)
        assert caught.value.code is Code.UNAUTHENTICATED
        async with Client(address, peer, controller_files(out, "spare")) as other:
            await other.capabilities(deadline=10.0)


def test_a_network_without_a_controller_has_nothing_of_all_that(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    out = tmp_path / "net"
    initialise(tmp_path / "small.toml", out)
    assert not (out / "operators").exists()
    assert json.loads((out / "network.json").read_text())["operators"] == []
    for node in "amdb":
        config, directory = ckms(out, node)
        assert config.controller is None
        assert config.gnmi is None
        assert not {path.name for path in directory.iterdir()} & {"services.pem", "services-crl.pem", "controllers"}
    assert len(load_lists(out / "nodes/m/ckms/crl.pem")) == 5


def plan(*arguments: object) -> Any:
    return CliRunner().invoke(network, ["plan", *map(str, arguments)])


def test_a_changed_description_becomes_a_new_plan(out: Path, tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(TWO)
    shown = plan(tmp_path / "two.toml")
    assert shown.stdout.encode() == (out / "nodes/dc/controller/plan.json").read_bytes()
    (tmp_path / "two.toml").write_text(TWO.replace('a = "a"\nb = "m"', 'a = "a"\nb = "m"\nrisk_groups = ["bridge"]'))
    written = plan(tmp_path / "two.toml", "--out", tmp_path / "plan.json", "--loopback", "127.77.0.0", "--json")
    assert json.loads(written.stdout) == {"plan": str(tmp_path / "plan.json"), "nodes": 4, "links": 4}
    found, _ = load_plan(tmp_path / "plan.json")
    assert {link.id: link.risk_groups for link in found.links if link.risk_groups} == {"a-m": ("bridge",)}
    assert found.nodes[0].target == "127.77.0.2:9339"


def test_a_plan_that_cannot_be_made_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(TWO.replace("postgresql+psycopg", "sqlite"))
    refused = plan(tmp_path / "bad.toml")
    assert refused.exit_code != 0
    assert "several nodes have the role controller" in refused.output
    (tmp_path / "two.toml").write_text(TWO)
    assert "cannot be written: No such file" in plan(tmp_path / "two.toml", "--out", tmp_path / "no/plan.json").output


def test_an_agent_whose_address_is_given_moves_with_its_network_and_only_then(tmp_path: Path) -> None:
    description = tmp_path / "small.toml"
    for node, agent in (("number = 3\n", "127.20.0.3:9400"), ("number = 4\n", "192.0.2.7:9339")):
        text = description.read_text() if description.exists() else SMALL
        description.write_text(text.replace(node, f'{node}agent = "{agent}"\n'))
    moved = read_description(description, "127.232.9.0")
    assert [node.agent for node in moved.node if node.agent] == ["127.232.9.3:9400", "192.0.2.7:9339"]
    there = read_description(description)
    assert [node.agent for node in there.node if node.agent] == ["127.20.0.3:9400", "192.0.2.7:9339"]
