"""Three carrier KMSs in a row as roles, over real TLS, links and stores, with the AKMSs at the ends."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from keyhaul.agents.signing import sign
from keyhaul.agents.statements import PathStatement, StatedHop, Statement
from keyhaul.command.init import initialise
from keyhaul.config.loader import load
from keyhaul.config.services import (
    CkmsConfig,
    ControllerSection,
    ControllerServerSection,
    ForwardingEntry,
    PathSection,
)
from keyhaul.identity.keys import fingerprint, public_pem
from keyhaul.runtime.interface import StartError
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Deliver, RelayFailure
from services.ckms.held import Change, Held, HighWater
from services.ckms.own_time import OwnTime
from services.ckms.role import ROLE
from services.ckms.schema import SCHEMA
from services.ckms.statement_store import StatementStore
from services.ckms.steering import machine_clocks
from tests.services.ckms.running import FakeRuntime, start, start_row
from tests.services.ckms.stated import KEY, THIEF

DESCRIPTION = Path(__file__).parents[2] / "network" / "small.toml"


@pytest.fixture
def network() -> Path:
    process = os.getpid()
    out = Path("/tmp") / f"ckms-{process}"  # simulated modules meet on sockets, whose paths are short
    initialise(DESCRIPTION, out, loopback=f"127.{128 + process % 100}.{process // 100 % 250}.0")
    return out


@pytest.fixture(autouse=True)
def leave_nothing() -> Any:
    yield
    shutil.rmtree(Path("/tmp") / f"ckms-{os.getpid()}", ignore_errors=True)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def test_batches_cross_a_real_link_and_operators_see_it(network: Path, stack: AsyncExitStack) -> None:
    access, runtimes = await start_row(network, stack)
    async with asyncio.timeout(60):
        bits = os.urandom(4_096)
        assert await access["b"].carry("ckms-a", "1" * 32, bits) is None
        assert await access["a"].delivered.get() == Deliver(batch="1" * 32, bits=bits, id=AnyText())
        assert await access["a"].carry("ckms-b", "2" * 32, bits) is None
        assert (await access["b"].delivered.get()).bits == bits
        assert await access["a"].carry("ckms-z", "3" * 32, bits) is RelayFailure.NO_PATH
        with pytest.raises(ServiceError) as error:
            await access["a"].carry("ckms-b", "2" * 32, bits)
    assert error.value.code is ErrorCode.CONFLICT
    links = {link["link"]: link for link in (await runtimes["a"].commands["links"]({}))["links"]}
    assert (links["a-m"]["neighbour"], links["a-m"]["state"], links["a-d"]["state"]) == ("ckms-m", "up", "down")
    assert runtimes["a"].check()["links"] == {"a-m": True, "a-d": False}
    paths = (await runtimes["a"].commands["paths"]({}))["paths"]
    assert [(path["destination"], path["rank"], path["on_probation"]) for path in paths] == [
        ("ckms-b", 0, False),
        ("ckms-b", 1, False),
    ]
    sample = runtimes["b"].registry.get_sample_value
    assert (sample("keyhaul_ckms_submitted_total"), sample("keyhaul_ckms_delivered_total")) == (1, 1)
    with pytest.raises(LookupError):
        await runtimes["a"].commands["protect"]({"link": "x", "suites": ["otp"]})
    with pytest.raises(ValueError, match="protect takes"):
        await runtimes["a"].commands["protect"]({"link": "a-m"})
    with pytest.raises(ValueError):
        await runtimes["a"].commands["protect"]({"link": "a-m", "suites": ["rot13"]})
    assert await runtimes["a"].commands["protect"]({"link": "a-m", "suites": ["otp"]})
    assert [runtime.alarms for runtime in runtimes.values()] == [[], [], []]


class AnyText(str):
    """Equal to every text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    __hash__ = str.__hash__


async def test_what_a_controller_said_is_in_force_again_after_a_restart(network: Path) -> None:
    directory = network / "nodes" / "a" / "ckms"
    config = load(directory / "config.toml", CkmsConfig)
    (directory / "statements.pem").write_bytes(public_pem(KEY.public_key()))
    server = ControllerServerSection(service="controller-1", address="127.0.0.1:1", statement_key="statements.pem")
    config.controller = ControllerSection(server=[server])
    said = PathStatement(
        destination="ckms-b", group="0" * 32, rank=0, first=StatedHop("ckms-d", "9" * 16), rate=1, burst=1
    )
    statement = Statement(v=1, node="ckms-a", epoch=3, serial=5, lifetime_s=3_600, says=said)
    now = machine_clocks()
    (signed,) = sign([statement], KEY)
    held = Held(statement, signed, accepted=0.0)
    store = await EmbeddedStore.open(config.store, directory, SCHEMA)
    change = Change(HighWater(3, 5, doubt=False), (held,))
    keys = frozenset({fingerprint(KEY.public_key())})
    await StatementStore(store).write(change, [held], keys, OwnTime(None, now).checkpoint(now))
    await store.close()

    static = [(0, None), (1, None)]
    assert await paths_of(config, directory) == ([(0, 5), *static], [])
    (directory / "statements.pem").write_bytes(public_pem(THIEF.public_key()))
    assert await paths_of(config, directory) == (static, ["stored-statement-dropped"])
    assert await paths_of(config, directory) == (static, [])
    config.controller = None
    assert await paths_of(config, directory) == (static, [])


async def paths_of(config: CkmsConfig, directory: Path) -> tuple[list[tuple[int, int | None]], list[str]]:
    """Rank and serial of the paths of a CKMS that is started and stopped, and its alarms."""
    async with AsyncExitStack() as stack:
        runtime = await start(ROLE, config, directory, stack)
        paths = (await runtime.commands["paths"]({}))["paths"]
        return [(path["rank"], path["serial"]) for path in paths], runtime.alarms


def spoil_statement_key(config: CkmsConfig) -> None:
    server = ControllerServerSection(service="controller-1", address="127.0.0.1:1", statement_key="none.pem")
    config.controller = ControllerSection(server=[server])


def spoil_akms(config: CkmsConfig) -> None:
    config.akms = None


def spoil_path(config: CkmsConfig) -> None:
    config.path = [PathSection(destination="ckms-b", rank=0, next="ckms-q", label="1" * 16)]


def spoil_entry(config: CkmsConfig) -> None:
    config.entry = [ForwardingEntry(label="1" * 16, previous="ckms-b", next="ckms-b")]


def spoil_address(config: CkmsConfig) -> None:
    config.link[0].address = None


def spoil_key(config: CkmsConfig) -> None:
    config.link[0].peer_link_key = "missing.pem"


def spoil_module(config: CkmsConfig) -> None:
    config.link[0].module.url = "http://127.0.0.1"


def spoil_identity(config: CkmsConfig) -> None:
    config.identity.classic_certificate = None
    config.identity.classic_key = None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_akms, "paths start only where an AKMS is"),
        (spoil_path, "'ckms-q' is no neighbour of ckms-a"),
        (spoil_entry, "next and next_label belong together"),
        (spoil_address, "give the neighbour's address"),
        (spoil_key, r"missing\.pem"),
        (spoil_statement_key, r"none\.pem"),
        (spoil_module, "is not the URL of a KME"),
        (spoil_identity, "classic_certificate"),
    ],
)
async def test_it_says_why_it_cannot_start(network: Path, spoil: Callable[[CkmsConfig], None], says: str) -> None:
    directory = network / "nodes" / "a" / "ckms"
    config = load(directory / "config.toml", CkmsConfig)
    spoil(config)

    with pytest.raises(StartError, match=says):
        await ROLE.run(config, directory, FakeRuntime(), asyncio.Event())


async def test_a_store_that_cannot_be_opened_stops_it(network: Path) -> None:
    directory = network / "nodes" / "a" / "ckms"
    config = load(directory / "config.toml", CkmsConfig)
    (directory / "store.db").write_bytes(b"no store" * 1_000)

    with pytest.raises(StoreError):
        await ROLE.run(config, directory, FakeRuntime(), asyncio.Event())
