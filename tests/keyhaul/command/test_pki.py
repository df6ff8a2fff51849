"""`keyhaul pki` from an empty directory to a revoked certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from keyhaul.command.init import initialise
from keyhaul.command.pki import pki
from keyhaul.config.services import IdentitySection
from keyhaul.identity import secretfile
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.identity.revocation import load_lists

PASSPHRASE = "correct horse"
SMALL = Path(__file__).parents[2] / "network/small.toml"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(pki, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


@pytest.fixture
def site(tmp_path: Path) -> Path:
    secretfile.write(tmp_path / "passphrase", PASSPHRASE.encode() + b"\n")
    made = succeed("init", *authorities(tmp_path), "--domain", "test.example")
    operators = ["ukms", "akms", "ckms", "aaa", "controller", "viewer", "operator"]
    assert made["made"] == ["root", *operators, "classic", "saes", "modules", "sites"]
    return tmp_path


def authorities(site: Path) -> tuple[object, ...]:
    return ("--authorities", site / "authorities", "--passphrase-file", site / "passphrase")


CKMS = ("--role", "ckms", "--node", "8")


def test_a_node_gets_its_certificates_without_its_keys_leaving_it(site: Path) -> None:
    node = site / "node"
    made = succeed("csr", "--domain", "test.example", *CKMS, "--out", node)
    assert made["algorithm"] == "ML-DSA-65"
    succeed("csr", "--domain", "test.example", *CKMS, "--classic", "--out", node)
    signed = succeed("sign", node / "request.pem", *authorities(site), *CKMS, "--out", node / "certificate.pem")
    assert (signed["authority"], signed["uri"]) == ("ckms", "spiffe://test.example/ckms/8")
    twin = succeed(
        "sign", node / "classic-request.pem", *authorities(site), *CKMS, "--out", node / "classic-certificate.pem"
    )
    assert twin["authority"] == "classic"
    succeed("link-key", node / "link-key.pem", "--public", site / "ckms-8.pem")
    section = IdentitySection(
        certificate="node/certificate.pem",
        key="node/key.pem",
        trust="authorities/trust.pem",
        crl="authorities/crl.pem",
        classic_certificate="node/classic-certificate.pem",
        classic_key="node/classic-key.pem",
        link_key="node/link-key.pem",
    )
    name = ServiceName("test.example", Role.CKMS, NodeId("8"))
    assert ServiceIdentity.load(section, site, name).name == name


def test_a_request_for_another_name_is_not_signed(site: Path) -> None:
    succeed("csr", "--domain", "test.example", "--role", "akms", "--node", "8", "--out", site / "n")
    result = run("sign", site / "n/request.pem", *authorities(site), *CKMS, "--out", site / "c.pem")
    assert result.exit_code == 1
    assert "the request is for akms-8, but ckms-8 is to be signed" in result.output
    assert not (site / "c.pem").exists()


def test_a_request_of_another_domain_is_not_signed(site: Path) -> None:
    succeed("csr", "--domain", "else.example", *CKMS, "--out", site / "n")
    for domain in ((), ("--domain", "else.example")):
        result = run("sign", site / "n/request.pem", *authorities(site), *CKMS, *domain, "--out", site / "c.pem")
        assert result.exit_code == 1
        assert not (site / "c.pem").exists()


@pytest.mark.parametrize(
    ("subject", "authority"),
    [
        (("--sae", "alice"), "saes"),
        (("--module", "qkdm-1", "--host", "192.0.2.1"), "modules"),
        (("--site", "kme-1", "--host", "192.0.2.1", "--host", "kme.test"), "sites"),
    ],
)
def test_others_get_p256_certificates_from_authorities_of_their_own(
    site: Path, subject: tuple[str, ...], authority: str
) -> None:
    assert succeed("csr", *subject, "--out", site / "n")["algorithm"] == "P-256"
    signed = succeed("sign", site / "n/request.pem", *authorities(site), *subject, "--out", site / "c.pem")
    assert signed["authority"] == authority
    (shown,) = succeed("show", site / "c.pem")["objects"]
    assert shown["subject"] == f"CN={subject[1]}"


def test_a_revoked_certificate_stands_on_the_next_list(site: Path) -> None:
    succeed("csr", "--domain", "test.example", *CKMS, "--out", site / "n")
    signed = succeed("sign", site / "n/request.pem", *authorities(site), *CKMS, "--out", site / "c.pem")
    issued = site / "authorities/ckms/issued" / f"{signed['serial']}.pem"
    assert issued.exists()
    revoked = succeed("revoke", issued, *authorities(site), "--reason", "key-compromise")
    assert revoked["lists"] == {"ckms": 2}
    lists = succeed("show", site / "authorities/crl.pem")["objects"]
    assert [entry["serial"] for each in lists for entry in each["revoked"]] == [signed["serial"]]
    assert succeed("crl", "ckms", *authorities(site), "--days", "30")["number"] == 3
    result = run("revoke", site / "n/request.pem", *authorities(site))
    assert result.exit_code == 1


def test_lists_reach_the_services_of_a_laboratory(tmp_path: Path) -> None:
    net = tmp_path / "n"
    initialise(SMALL, net)
    result = succeed(
        "revoke",
        net / "nodes/m/ckms/certificate.pem",
        net / "saes/first-west-1/certificate.pem",
        "--authorities",
        net / "authorities",
        "--install",
        net,
    )
    assert result["lists"] == {"ckms": 2, "saes": 2}
    assert len(result["installed"]) == 4 + 2 + 2 + 1 + 2
    assert sum(len(each) for each in load_lists(net / "nodes/a/akms/crl.pem")) == 1
    (saes,) = load_lists(net / "nodes/west/ukms/saes-crl.pem")
    assert len(saes) == 1
    assert [len(each) for each in load_lists(net / "authorities/sites/crl.pem")] == [0]


def test_keys_of_authorities_are_encrypted_unless_told_otherwise(site: Path) -> None:
    for key in (site / "authorities").glob("*/key.pem"):
        assert b"ENCRYPTED" in key.read_bytes()
        assert key.stat().st_mode & 0o777 == 0o600
    secretfile.write(site / "wrong", b"wrong")
    succeed("csr", "--sae", "alice", "--out", site / "n")
    arguments = ("sign", site / "n/request.pem", "--sae", "alice", "--out", site / "c.pem")
    result = run(*arguments, "--authorities", site / "authorities", "--passphrase-file", site / "wrong")
    assert result.exit_code == 1
    assert "passphrase is wrong" in result.output
    result = run(*arguments, "--authorities", site / "authorities")
    assert result.exit_code == 2
    assert "give --passphrase-file" in result.output
    (site / "passphrase").chmod(0o644)
    result = run(*arguments, *authorities(site))
    assert result.exit_code == 1
    assert "chmod 600" in result.output


def test_init_makes_what_is_missing_and_leaves_the_rest(site: Path) -> None:
    before = (site / "authorities/root/certificate.pem").read_bytes()
    assert succeed("init", *authorities(site), "--domain", "test.example", "--role", "manager")["made"] == ["manager"]
    assert succeed("init", *authorities(site), "--domain", "test.example")["made"] == []
    assert (site / "authorities/root/certificate.pem").read_bytes() == before
    assert run("init", *authorities(site), "--domain", "else.example").exit_code == 1


def test_intermediates_sign_while_the_root_is_elsewhere(site: Path) -> None:
    (site / "authorities/root/key.pem").unlink()
    succeed("csr", "--domain", "test.example", *CKMS, "--out", site / "n")
    succeed("sign", site / "n/request.pem", *authorities(site), *CKMS, "--out", site / "c.pem")
    succeed("revoke", site / "c.pem", *authorities(site))
    result = run("init", *authorities(site), "--domain", "test.example", "--role", "security")
    assert result.exit_code == 1
    assert "the private key of authority 'root' is not here" in result.output


def test_a_key_is_never_overwritten(site: Path) -> None:
    succeed("csr", "--sae", "alice", "--out", site / "n")
    before = (site / "n/key.pem").read_bytes()
    result = run("csr", "--sae", "alice", "--out", site / "n")
    assert result.exit_code == 1
    assert "To renew" in result.output
    assert (site / "n/key.pem").read_bytes() == before


def test_a_link_key_is_made_once_and_exported_ever_after(tmp_path: Path) -> None:
    made = succeed("link-key", tmp_path / "key.pem")
    again = succeed("link-key", tmp_path / "key.pem", "--public", tmp_path / "public.pem")
    assert (made["made"], again["made"]) == (True, False)
    assert made["fingerprint"] == again["fingerprint"]
    (shown,) = succeed("show", tmp_path / "public.pem")["objects"]
    assert shown["fingerprint"] == made["fingerprint"]


def test_private_keys_are_not_shown(tmp_path: Path) -> None:
    succeed("link-key", tmp_path / "key.pem")
    result = run("show", tmp_path / "key.pem")
    assert result.exit_code == 1
    assert "holds a private key" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("csr", "--out", "n"),
        ("csr", "--out", "n", "--role", "ckms"),
        ("csr", "--out", "n", "--role", "ckms", "--node", "8"),
        ("csr", "--out", "n", "--role", "ckms", "--node", "UP", "--domain", "test.example"),
        ("csr", "--out", "n", "--role", "qkdm", "--node", "8", "--domain", "test.example"),
        ("csr", "--out", "n", "--sae", "a/b"),
        ("csr", "--out", "n", "--sae", "a", "--site", "b", "--host", "c"),
        ("csr", "--out", "n", "--site", "b"),
        ("csr", "--out", "n", "--sae", "a", "--host", "c"),
        ("init", "--authorities", "a", "--domain", "Not A Domain", "--unencrypted"),
    ],
)
def test_wrong_usage_is_told_as_such_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert list(tmp_path.iterdir()) == []
