"""A configuration file is read whole or refused with everything that is wrong in it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.config.loader import ConfigurationError, load, parse_address, read, resolve
from keyhaul.config.problems import Problem
from keyhaul.config.services import (
    AgentsSection,
    CkmsConfig,
    ControllerConfig,
    ControllerSection,
    ControllerServerSection,
    GnmiSection,
    IdentitySection,
    LinkSection,
    ListenSection,
    ModuleConfig,
    ModuleSection,
    OperationsSection,
    PathSection,
    QkdmConfig,
    ServiceSection,
    StoreSection,
)
from keyhaul.config.writer import to_toml


def module() -> ModuleSection:
    return ModuleSection(url="https://127.0.0.1:8014", trust="t", kme="kme-1", sae="ckms-1", peer_sae="ckms-2")


def link(**changes: object) -> LinkSection:
    fields: dict[str, object] = {
        "id": "1-2",
        "neighbour": "ckms-2",
        "address": "127.0.0.2:7443",
        "initiator": True,
        "peer_link_key": "n.pem",
        "suites": ["aes-256-gcm", "otp"],
        "floor": "aes-256-gcm",
        "module": module(),
    }
    return LinkSection(**(fields | changes))  # type: ignore[arg-type]


def ckms(**changes: object) -> CkmsConfig:
    fields: dict[str, object] = {
        "service": ServiceSection(domain="test.example", role="ckms", node="1"),
        "identity": IdentitySection(certificate="c", key="k", trust="t", link_key="l"),
        "listen": ListenSection(address="127.0.0.1:7443"),
        "operations": OperationsSection(metrics="127.0.0.1:9443", socket="socket"),
        "store": StoreSection(path="store.db", key_file="store.key"),
        "link": [link()],
    }
    return CkmsConfig(**(fields | changes))  # type: ignore[arg-type]


def steered_by(service: str) -> ControllerServerSection:
    return ControllerServerSection(service=service, address="127.0.0.9:7443", statement_key="s.pem")


def problems(config: CkmsConfig | ControllerConfig | QkdmConfig) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(to_toml(config).encode(), type(config), Path("config.toml"))
    return [str(problem) for problem in caught.value.problems]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = PathSection(destination="ckms-9", rank=0, next="ckms-2", label="0123456789abcdef")
    config = ckms(path=[path], controller=ControllerSection(server=[steered_by("controller-1")], hard_limit=60.0))
    (tmp_path / "config.toml").write_text(to_toml(config, "A comment\n\nin lines"))
    assert load(tmp_path / "config.toml", CkmsConfig) == config


def test_every_error_is_told_at_once_with_table_and_field(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        """
colour = "red"

[service]
domain = "test.example"
role = "akms"
node = "Node 1"

[identity]
certificate = "c"
key = 7

[listen]
address = "nowhere"

[operations]
metrics = "192.0.2.1:9443"
socket = "s"
log_level = "loud"

[store]
path = "store.db"
sealer = "passphrase"

[[link]]
id = "1-2"
neighbour = "ckms-2"
initiator = true
peer_link_key = "p"
suites = ["aes-256-gcm", "otp"]
floor = "otp"
rate = true
module = "none"

[[link]]
id = "1-3"
neighbour = "aaa-3"
address = "127.0.0.1:99999"
initiator = false
peer_link_key = "p"
suites = ["otp", "otp"]
floor = "aes-256-gcm"
[link.module]
url = "http://127.0.0.1"
trust = "t"
kme = "k"
sae = "s"
peer_sae = "p"
"""
    )
    with pytest.raises(ConfigurationError) as caught:
        load(path, CkmsConfig)
    places = {(problem.table, problem.field) for problem in caught.value.problems}
    assert places == {
        ("", "colour"),
        ("service", "node"),
        ("identity", "key"),
        ("identity", "trust"),
        ("listen", "address"),
        ("operations", "log_level"),
        ("store", "passphrase_file"),
        ("link 1", "rate"),
        ("link 1", "module"),
        ("link 2", "neighbour"),
        ("link 2", "address"),
        ("link 2", "suites"),
        ("link 2", "floor"),
        ("link 2.module", "url"),
    }
    lines = str(caught.value).splitlines()
    assert f'{path}: [operations] log_level: "loud" is not allowed ("debug", "error", "info", "warning")' in lines
    assert f"{path}: [identity] trust: missing (a string)" in lines


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a = \n", "is not TOML: Invalid value (at line 1, column 5)"),
        (b"a = 1\na = 2\n", "is not TOML: Cannot overwrite a value (at line 2, column 6)"),
        (b"a = 1\nb = '\xff'\n", "line 2 is not UTF-8 text"),
        (b"a = " + b"[" * 100_000, "is not TOML: nested too deeply"),
    ],
)
def test_what_is_no_toml_is_told_by_line(content: bytes, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(content, CkmsConfig, Path("config.toml"))
    assert caught.value.problems == [Problem("", "", told)]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "absent", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError, match=told):
            load(path, CkmsConfig)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"operations": OperationsSection(metrics="192.0.2.1:9", socket="s")}, "is not a loopback address"),
        ({"operations": OperationsSection(metrics="127.0.0.1:9", socket="s" * 108)}, "at most 107 bytes"),
        (
            {"service": ServiceSection(domain="test.example", role="ukms", node="1")},
            'not allowed in this file ("ckms")',
        ),
        ({"store": StoreSection(path="x")}, 'key_file: missing (sealer "key-file"'),
        ({"link": [link(floor="otp")]}, '"aes-256-gcm" is weaker than the floor "otp"'),
        ({"link": [link(suites=[])]}, "suites: empty"),
        ({"link": [link(suites=["otp"])]}, '"aes-256-gcm" is not in suites'),
        ({"link": [link(address=None)]}, "address: missing"),
        ({"link": [link(neighbour="ukms-3")]}, "no neighbour of a ckms"),
        ({"controller": ControllerSection(server=[])}, "[controller.server] missing"),
        ({"controller": ControllerSection(server=[steered_by("ckms-1")])}, '"ckms-1" is not allowed (controller-NODE)'),
        ({"controller": ControllerSection(server=[steered_by("controller-1")] * 2)}, "stands there 2 times"),
        ({"controller": ControllerSection(server=[steered_by("controller-1")], hard_limit=0)}, "more than 0"),
        ({"gnmi": GnmiSection(address="nowhere", trust="s")}, '[gnmi] address: "nowhere" is no address'),
        (
            {"gnmi": GnmiSection(address="127.0.0.1:9339", trust="s")},
            "[identity] classic_certificate: missing (gNMI needs it",
        ),
        ({"link": [link(), link()]}, '[link] id: "1-2" stands there 2 times'),
        *(
            ({"link": [link(module=msgspec.structs.replace(module(), url=url))]}, "is not allowed (https://HOST:PORT)")
            for url in ("https://[::1", "https://a:99999", "http://a:1", "https://user@a:1", "https://a:1/?b", "https:")
        ),
        ({"link": [link(rate=0)]}, "rate: 0 is too little"),
        ({"link": [link(rotate_seconds=0.0)]}, "rotate_seconds: 0.0 is too little (more than 0)"),
        ({"identity": IdentitySection(certificate="c", key="k", trust="t")}, "[identity] link_key: missing"),
        (
            {"path": [PathSection(destination="ckms-9", rank=0, next="ckms-7", label="0123456789abcdef")]},
            '"ckms-7" is no neighbour (ckms-2)',
        ),
        (
            {
                "path": [
                    PathSection(destination="ckms-9", rank=0, next="ckms-2", label="0123456789abcdef"),
                    PathSection(destination="ckms-9", rank=0, next="ckms-2", label="1123456789abcdef"),
                ]
            },
            '"0 for ckms-9" stands there 2 times',
        ),
        (
            {"path": [PathSection(destination="ckms-9", rank=0, next="ckms-2", label="0123")]},
            'label: "0123" is not allowed (16 hexadecimal digits)',
        ),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes: dict[str, object], told: str) -> None:
    assert any(told in problem for problem in problems(ckms(**changes)))


def controller(**changes: object) -> ControllerConfig:
    fields: dict[str, object] = {
        "service": ServiceSection(domain="test.example", role="controller", node="dc"),
        "identity": IdentitySection(certificate="c", key="k", trust="t", classic_certificate="d", classic_key="l"),
        "listen": ListenSection(address="127.0.0.1:7446"),
        "operations": OperationsSection(metrics="127.0.0.1:9448", socket="socket"),
        "gnmi": AgentsSection(trust="services.pem"),
        "database": "sqlite:///controller.db",
        "statement_key": "statement-key.pem",
        "plan": "plan.json",
    }
    return ControllerConfig(**(fields | changes))  # type: ignore[arg-type]


def test_a_controller_is_read_as_it_was_written() -> None:
    config = controller(policy="hops")
    assert read(to_toml(config).encode(), ControllerConfig, Path("config.toml")) == config


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"service": ServiceSection(domain="test.example", role="ckms", node="1")}, 'in this file ("controller")'),
        ({"identity": IdentitySection(certificate="c", key="k", trust="t")}, "[identity] classic_certificate: missing"),
        ({"database": "controller.db"}, "no URL of a database (e.g. sqlite:///controller.db)"),
        ({"policy": "fastest"}, 'policy: "fastest" is not allowed'),
    ],
)
def test_a_controller_that_does_not_fit_is_refused(changes: dict[str, object], told: str) -> None:
    assert any(told in problem for problem in problems(controller(**changes)))


def test_simulated_modules_are_checked() -> None:
    config = QkdmConfig(
        service=ServiceSection(domain="test.example", role="qkdm", node="1"),
        operations=OperationsSection(metrics="127.0.0.1:9", socket="s"),
        module=[
            ModuleConfig(
                link="1-2",
                address="127.0.0.1:8014",
                kme="k",
                peer_kme="l",
                sae="ckms-1",
                peer_sae="ckms-2",
                certificate="c",
                key="k",
                trust="t",
                channel="../c",
                transmitter=True,
                rate=-1.0,
                qber=1.5,
                key_size=100,
            )
        ],
    )
    told = problems(config)
    assert [line.split(":")[0] for line in told] == ["[module 1] rate", "[module 1] qber", "[module 1] key_size"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:7443", ("::1", 7443)),
        ("ckms-8.example.org:7443", ("ckms-8.example.org", 7443)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_addresses_are_parsed(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", "127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:8a", "::1:80",
     "[::1]", "[1.2.3.4]:5", "256.0.0.1:5", "a b:1", "-a:1", "x:١", "127.0.0.1:80 "],
)  # fmt: skip
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(text)


def test_paths_are_relative_to_their_file() -> None:
    assert resolve(Path("/net/nodes/1/qkdm"), "../../../run/1-2.sock") == Path("/net/run/1-2.sock")
    assert resolve(Path("/net"), "/etc/key") == Path("/etc/key")


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_no_bytes_lead_to_anything_but_a_configuration_error(content: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read(content, CkmsConfig, Path("config.toml"))
