"""Statements that reach a CKMS or do not, and what is read back, over real gNMI."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controller.installing import Outcome, Result, Signed, read, send, sign_tell
from controller.steering.effects import Say, Tell
from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.failures import RefusedByTarget, TargetError, Unreachable
from keyhaul.agents.statements import EntryStatement, PathStatement, StatedHop, StatementRefusal, StatementRefused
from keyhaul.agents.statements import Withdrawal as Withdrawn
from keyhaul.identity.keys import generate
from keyhaul.identity.names import ServiceName
from tests.controller.agents import CONTROLLER, KEY, Agent, free_address, link
from tests.keyhaul.agents.gnmi.pki import DOMAIN, Twins

NODE = "ckms-2"
ENTRY = EntryStatement(label="a" * 16, previous="ckms-1", next=StatedHop("ckms-3", "b" * 16), rate=1e3, burst=4_096)
PATH = PathStatement(
    destination="ckms-3", group="0" * 32, rank=0, first=StatedHop("ckms-3", "c" * 16), rate=1e3, burst=4_096
)
STRAY = EntryStatement(label="d" * 16, previous="ckms-9", rate=1e3, burst=4_096)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp("twins"))


@pytest.fixture
async def agent(twins: Twins) -> AsyncIterator[Agent]:
    agent = Agent(NODE, {"ckms-1": link("1-2"), "ckms-3": link("2-3")}, twins)
    await agent.start()
    yield agent
    await agent.stop()


@pytest.fixture
async def client(agent: Agent, twins: Twins) -> AsyncIterator[Client]:
    async with Client(agent.address, ServiceName.of(DOMAIN, NODE), twins.files(CONTROLLER, crl=False)) as client:
        yield client


def tell(agent: Agent, *says: EntryStatement | PathStatement | Withdrawn, node: str = NODE) -> Tell:
    return Tell(1, node, agent.incarnation, tuple(Say(one, 100, "e" * 32, 1) for one in says))


def signed(agent: Agent, *says: EntryStatement | PathStatement | Withdrawn, first: int = 1, epoch: int = 1) -> Signed:
    return sign_tell(tell(agent, *says), epoch, range(first, first + len(says)), KEY)


async def test_what_is_told_is_in_force_and_read_back(agent: Agent, client: Client) -> None:
    assert await send(client, signed(agent, ENTRY, PATH, first=7)) == Outcome(Result.CONFIRMED)
    assert [entry.label for entry in agent.entries] == ["a" * 16]
    there = await read(client)
    assert (there.incarnation, there.epoch, there.serial) == (agent.incarnation, 1, 8)
    assert {(one.serial, one.remaining_s) for one in there.statements} == {(7, 100), (8, 100)}


async def test_a_node_without_statements_is_read_too(agent: Agent, client: Client) -> None:
    there = await read(client)
    assert (there.epoch, there.serial, there.statements) == (0, 0, ())


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({"epoch": 1, "first": 9}, StatementRefusal.OLD_EPOCH),
        ({"epoch": 2, "first": 5}, StatementRefusal.REPLAYED),
    ],
)
async def test_the_reason_of_a_refusal_is_understood(
    agent: Agent, client: Client, second: dict[str, int], why: StatementRefusal
) -> None:
    assert (await send(client, signed(agent, ENTRY, epoch=2, first=5))).result is Result.CONFIRMED
    outcome = await send(client, signed(agent, PATH, **second))
    assert (outcome.result, outcome.refusal) == (Result.REFUSED, why)
    assert agent.paths == []


async def test_one_that_does_not_fit_keeps_all_of_its_set_out(agent: Agent, client: Client) -> None:
    outcome = await send(client, signed(agent, ENTRY, STRAY))
    assert (outcome.result, outcome.refusal) == (Result.REFUSED, StatementRefusal.UNFIT)
    assert agent.entries == []


async def test_a_key_that_is_not_pinned_steers_nothing(agent: Agent, client: Client) -> None:
    thief = generate(lambda count: b"\x02" * count)
    outcome = await send(client, sign_tell(tell(agent, ENTRY), 1, [1], thief))
    assert (outcome.result, outcome.refusal) == (Result.REFUSED, StatementRefusal.FORGED)


async def test_no_answer_in_time_decides_nothing(agent: Agent, client: Client) -> None:
    agent.answering.clear()
    outcome = await send(client, signed(agent, ENTRY), deadline=0.3)
    assert outcome.result is Result.UNKNOWN
    agent.answering.set()


async def test_a_node_that_fails_after_it_took_statements_decides_nothing(
    agent: Agent, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: float) -> None:
        raise RuntimeError

    monkeypatch.setattr(agent.installed, "heard", fail)
    assert (await send(client, signed(agent, ENTRY))).result is Result.UNKNOWN
    assert len(agent.entries) == 1


async def test_a_node_that_is_not_there_is_not_known_to_have_it(agent: Agent, twins: Twins) -> None:
    files = twins.files(CONTROLLER, crl=False)
    async with Client(free_address(), ServiceName.of(DOMAIN, NODE), files) as client:
        assert (await send(client, signed(agent, ENTRY), deadline=0.5)).result is Result.UNKNOWN
        with pytest.raises(TargetError):
            await read(client, deadline=0.5)
    assert (await send(None, signed(agent, ENTRY))).result is Result.NOT_SENT


class Liar:
    """Answers a Get with whatever it likes."""

    def __init__(self, answer: list[tuple[object, ...]] | Exception) -> None:
        self.answer = answer

    async def get(self, *_: object, **__: object) -> list[tuple[object, ...]]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [[], [()] * 5, [()] * 4])
async def test_an_answer_that_makes_no_sense_is_a_refusal(answer: list[tuple[object, ...]]) -> None:
    with pytest.raises(RefusedByTarget):
        await read(Liar(answer))  # type: ignore[arg-type]


async def test_what_cannot_be_asked_is_told_as_it_is() -> None:
    with pytest.raises(Unreachable):
        await read(Liar(Unreachable("gone")))  # type: ignore[arg-type]


def test_what_no_node_would_accept_is_not_signed(agent: Agent) -> None:
    nonsense = PathStatement(
        destination="ckms-3",
        service_class="gold",
        group="0" * 32,
        rank=0,
        shares=2,
        first=StatedHop("ckms-3", "c" * 16),
        rate=1.0,
        burst=1,
    )
    with pytest.raises(StatementRefused):
        signed(agent, nonsense)


def test_withdrawals_are_not_recorded_and_all_else_is(agent: Agent) -> None:
    one = signed(agent, Withdrawn(serials=(3,)), ENTRY, first=8)
    assert one.serials == (8, 9)
    assert [(row.serial, row.node, row.demand, row.rank, row.installed) for row in one.rows] == [
        (9, NODE, "e" * 32, 1, False)
    ]
