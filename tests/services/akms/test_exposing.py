"""CN bits that a node in quarantine may know are burned at both ends; keys made under them are called back, once."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cryptography import x509

from keyhaul.identity.names import ServiceName
from keyhaul.randomness import identifier
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Transfer
from keyhaul.transport.messages.relay import Exposed, Exposure
from keyhaul.transport.operations import CARRIER_EXPOSED, Operation
from services.akms.service import Terms
from tests.services.akms.town import COLD, WARM, Akms, Town, name, until

FROM_B = Exposure("b" * 32, "ckms-1", "silver", sends=True, over=True)
"""What the CKMS of the maker tells it."""

AT_A = Exposure("b" * 32, "ckms-2", "silver", sends=False, over=True)
"""And that of the asker."""


class Watched(Town):
    """A town that remembers under which CN batches each batch of keys went out."""

    def __init__(self, directory: Path, terms: Terms) -> None:
        super().__init__(directory, terms)
        self.cn_of: dict[str, set[str]] = defaultdict(set)
        self.taken_under: dict[str, set[str]] = {}
        """The bits of the last attempt alone."""

    async def to_akms(
        self,
        caller: ServiceName,
        certificate: x509.Certificate,
        target: str,
        operation: Operation[Any, Any],
        request: Any,
    ) -> Any:
        if isinstance(request, Transfer):
            self.taken_under[request.batch] = {wanted.batch for wanted in request.cn}
            self.cn_of[request.batch] |= self.taken_under[request.batch]
        return await super().to_akms(caller, certificate, target, operation, request)

    async def tell(self, node: Akms, *exposures: Exposure, caller: str | None = None) -> Accepted:
        """The CKMS of a node tells its AKMS."""
        caller = caller or f"ckms-{node.name.node}"
        message = Exposed(exposures=list(exposures))
        reply: Accepted = await self.to_akms(name(caller), node.certificate, node.name.id, CARRIER_EXPOSED, message)
        return reply

    def batch_of(self, key_id: UUID) -> str:
        return next(push.batch for push in self.ukms["ukms-1"].pushed if key_id in push.key_ids)

    async def stock(self, least: int = 2048) -> None:
        """Wait for CN bits at both ends."""
        await until(lambda: made(self) >= least and got(self) >= least)


def made(town: Town) -> int:
    levels = town.b.service.carrier.levels()["made"]
    return sum(int(str(one["available"])) for one in levels)


def got(town: Town) -> int:
    return sum(town.a.service.carrier.arrivals.levels().values())


async def watched(directory: Path, terms: Terms) -> Watched:
    town = Watched(directory, terms)
    await town.open()
    return town


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Watched]:
    town = await watched(tmp_path, Terms(pool=WARM))
    yield town
    await town.close()
    for node in town.akms.values():
        assert not node.process.failures


async def ask(town: Town, number: int = 2) -> list[UUID]:
    return await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], number)


def usable(town: Town) -> set[UUID]:
    return set(town.ukms["ukms-1"].usable("master", "sae-1a"))


async def test_stock_is_burned_at_both_ends_and_new_keys_come_under_other_bits(town: Watched) -> None:
    await ask(town)
    await town.stock()
    before = {submit.batch for submit in town.submitted}
    await town.tell(town.b, FROM_B)
    await town.tell(town.a, AT_A)
    assert not {"cn-bits-unknown"} & {*town.a.process.alarms, *town.b.process.alarms}
    new = await ask(town, 3)
    assert not town.cn_of[town.batch_of(new[0])] & before
    await town.settled("sae-1a", ["sae-2a"])
    await town.stock()
    assert usable(town) == set(new), "what was not issued is void at both ends"
    assert "cn-bits-unknown" not in town.b.process.alarms, "both ends have one view"


@pytest.mark.parametrize("ends", ["both", "maker", "asker"])
async def test_keys_that_nobody_got_are_void_whichever_end_hears_of_it(town: Watched, ends: str) -> None:
    ids = await ask(town, 4)
    town.ukms["ukms-1"].issue("sae-1a", ids[:1])
    await town.settled("sae-1a", ["sae-2a"])
    if ends != "asker":
        await town.tell(town.b, FROM_B)
    if ends != "maker":
        await town.tell(town.a, AT_A)
    await until(lambda: town.aaa.void == set(ids[1:]))
    await town.settled("sae-1a", ["sae-2a"])
    assert usable(town) == set(ids[:1]), "what was issued stays: the other side has a right to it"
    for node in (town.a, town.b):
        if ends in ("both", "asker" if node is town.a else "maker"):
            assert "cn-bits-exposed" in node.process.alarms
            await until(lambda node=node: "exposed-keys-issued" in node.process.alarms)  # type: ignore[misc]
            [told] = await node.service.exposing.issued()
            assert (told["master"], told["class"], told["keys"]) == ("sae-1a", "silver", 1)
            assert node.process.registry.get_sample_value("keyhaul_akms_exposed_keys_issued") == 1


@pytest.mark.parametrize("ends", ["both", "maker", "asker"])
async def test_keys_that_were_all_issued_stay_for_the_other_side(town: Watched, ends: str) -> None:
    ids = await ask(town, 3)
    town.ukms["ukms-1"].issue("sae-1a", ids)
    await town.settled("sae-1a", ["sae-2a"])
    if ends != "asker":
        await town.tell(town.b, FROM_B)
    if ends != "maker":
        await town.tell(town.a, AT_A)
    for node in (town.a, town.b):
        if ends in ("both", "asker" if node is town.a else "maker"):
            await until(lambda node=node: "exposed-keys-issued" in node.process.alarms)  # type: ignore[misc]
    for _ in range(20):
        await asyncio.sleep(0.01)
        town.check("sae-1a", ["sae-2a"])
    assert set(town.ukms["ukms-2"].usable("slave", "sae-2a")) == set(ids)
    assert not town.aaa.void


async def test_what_is_told_again_or_late_burns_nothing_more(town: Watched) -> None:
    first = msgspec.structs.replace(FROM_B, over=False)
    await town.tell(town.b, first)
    old = await ask(town)
    await town.tell(town.b, first)
    assert usable(town) == set(old)
    await town.tell(town.b, FROM_B)
    await until(lambda: town.aaa.void == set(old))
    new = await ask(town)
    await town.stock()
    alarms = list(town.b.process.alarms)
    for told in ([FROM_B], [first], [first, FROM_B, FROM_B]):
        await town.tell(town.b, *told)
    await town.b.restart()
    await town.tell(town.b, first, FROM_B)
    assert town.b.process.alarms == alarms
    assert usable(town) == set(new)
    await town.tell(town.b, msgspec.structs.replace(FROM_B, id="c" * 32))
    await until(lambda: town.aaa.void == {*old, *new})
    await town.settled("sae-1a", ["sae-2a"])


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(FROM_B, service_class="gold"),
        msgspec.structs.replace(FROM_B, other="ckms-99"),
        msgspec.structs.replace(FROM_B, sends=False),
        msgspec.structs.replace(FROM_B, service_class="a class of a later release"),
    ],
)
async def test_bits_of_another_class_peer_or_direction_are_left_alone(town: Watched, other: Exposure) -> None:
    ids = await ask(town)
    await town.stock()
    stock = made(town), got(town)
    await town.tell(town.b, other)
    assert (made(town), got(town)) == stock
    assert usable(town) == set(ids)
    assert "cn-bits-exposed" not in town.b.process.alarms


async def test_only_the_ckms_of_this_node_is_believed(town: Watched) -> None:
    await ask(town)
    await town.stock()
    for caller in ("ckms-1", "akms-1", "ckms-3"):
        with pytest.raises(ServiceError) as refused:
            await town.tell(town.b, FROM_B, caller=caller)
        assert refused.value.code is ErrorCode.FORBIDDEN
    assert town.b.process.alarms == ["wrong-ckms"] * 3
    assert made(town)


@pytest.mark.parametrize("changed", [{"id": ""}, {"id": "x" * 32}, {"other": "akms-1"}, {"other": "berlin"}])
async def test_what_makes_no_sense_is_refused_whole(town: Watched, changed: dict[str, str]) -> None:
    await ask(town)
    await town.stock()
    with pytest.raises(ServiceError) as refused:
        await town.tell(town.b, FROM_B, msgspec.structs.replace(FROM_B, **changed))
    assert refused.value.code is ErrorCode.MALFORMED
    assert made(town)


async def test_class_split_is_burned_only_where_it_is_said_to_be(town: Watched) -> None:
    town.aaa.service_class = "split"
    ids = await ask(town)
    await town.tell(town.b, FROM_B)
    assert usable(town) == set(ids)
    await town.tell(town.b, msgspec.structs.replace(FROM_B, id="c" * 32, service_class="split"))
    await until(lambda: town.aaa.void == set(ids))
    await ask(town)
    await town.settled("sae-1a", ["sae-2a"])


@pytest.mark.parametrize("node", ["akms-1", "akms-2"])
async def test_a_death_between_any_two_steps_burns_all_the_same(tmp_path: Path, node: str) -> None:
    """Each run dies one step later than the one before, until an exposure is acted upon unharmed."""
    for death in range(1, 30):
        path = tmp_path / str(death)
        path.mkdir()
        town = await watched(path, Terms(pool=COLD))
        ids = await ask(town)
        await town.settled("sae-1a", ["sae-2a"])
        mortal, told = town.akms[node], FROM_B if node == "akms-2" else AT_A
        mortal.die_at = mortal.steps + death
        telling = asyncio.create_task(town.tell(mortal, told))
        await asyncio.wait([telling])
        await until(lambda town=town, ids=ids, mortal=mortal: mortal.died.is_set() or town.aaa.void == set(ids))  # type: ignore[misc]
        alive = not mortal.died.is_set() and telling.exception() is None
        await mortal.restart()
        await town.tell(mortal, told)
        await until(lambda town=town, ids=ids: town.aaa.void == set(ids))  # type: ignore[misc]
        await town.settled("sae-1a", ["sae-2a"])
        new = await ask(town)
        await town.settled("sae-1a", ["sae-2a"])
        assert usable(town) == set(new)
        await town.close()
        if alive:
            return
    raise AssertionError("an exposure takes more steps than the test foresees")


@pytest.mark.parametrize("ends", ["both", "maker", "asker"])
async def test_what_is_under_way_when_it_is_told_is_called_back_or_comes_under_other_bits(
    tmp_path: Path, ends: str
) -> None:
    """Each run tells one step later than the one before, until the keys are there before."""
    for step in range(1, 40):
        path = tmp_path / str(step)
        path.mkdir()
        town = await watched(path, Terms(pool=WARM))
        await ask(town)
        await town.settled("sae-1a", ["sae-2a"])
        told = await under_way(town, step, ends)
        exposed = {submit.batch for submit in town.submitted} if told is None else told

        def safe(town: Watched = town, exposed: set[str] = exposed) -> bool:
            # An asker knows under which bits it took keys; a maker that knows nothing may have sent them under others.
            cn_of = town.taken_under if ends == "asker" else town.cn_of
            return not any(cn_of[town.batch_of(key_id)] & exposed for key_id in usable(town))

        try:
            await until(safe, 3)
            await town.settled("sae-1a", ["sae-2a"])
            await ask(town)
            await town.settled("sae-1a", ["sae-2a"])
            assert safe()
        except BaseException as error:
            error.add_note(f"told at step {step}: {town.log}")
            raise
        await town.close()
        for node in town.akms.values():
            assert not node.process.failures
        if told is None:
            return
    raise AssertionError("a request takes more steps than the test foresees")


async def under_way(town: Watched, after: int, ends: str) -> set[str] | None:
    """Ask for keys, and tell of an exposure after so many steps of both AKMSs; return the CN batches that were there
    then, None where the keys came before.
    """
    seen: list[set[str]] = []
    telling: list[asyncio.Task[Accepted]] = []
    steps = 0

    def counting(node: Akms) -> Any:
        inner = node.step

        async def step(what: str, *, counted: bool = True) -> None:
            nonlocal steps
            await inner(what, counted=counted)
            steps += counted
            if steps >= after and not seen:
                seen.append({submit.batch for submit in town.submitted})
                if ends != "asker":
                    telling.append(asyncio.create_task(town.tell(town.b, FROM_B)))
                if ends != "maker":
                    telling.append(asyncio.create_task(town.tell(town.a, AT_A)))

        return step

    for node in town.akms.values():
        node.step = counting(node)  # type: ignore[method-assign]
    asking = asyncio.create_task(ask(town))
    await asyncio.wait([asking])
    missed = not seen
    if missed:
        await town.tell(town.b, FROM_B)
    await asyncio.gather(*telling)
    if (error := asking.exception()) is not None:
        assert isinstance(error, ServiceError)
    return None if missed else seen[0]


async def test_a_maker_that_dies_with_keys_on_their_way_calls_them_back_when_it_is_there_again(town: Watched) -> None:
    """The transfer was released, and the maker never heard of it: when it did not know yet, it was exposed."""
    town.lose_answer += ["peer.transfer"] * 50
    asking = asyncio.create_task(ask(town))
    ids = await asking
    await town.tell(town.b, FROM_B)
    town.lose_answer.clear()
    await town.b.restart()
    await until(lambda: town.aaa.void == set(ids))
    await town.settled("sae-1a", ["sae-2a"])
    assert not usable(town)


@pytest.mark.parametrize("before", ["an older copy", "nothing"])
async def test_a_store_that_was_put_back_or_lost_acts_upon_what_it_is_told_again(town: Watched, before: str) -> None:
    old = await ask(town)
    await town.settled("sae-1a", ["sae-2a"])
    await town.b.stop()
    store = town.b.directory / "akms.db"
    kept = town.b.directory / "copy.db"
    shutil.copy(store, kept)
    await town.b.start()
    await town.tell(town.b, FROM_B)
    await until(lambda: town.aaa.void == set(old))
    await town.settled("sae-1a", ["sae-2a"])
    new = await ask(town)
    await town.settled("sae-1a", ["sae-2a"])
    await town.b.stop()
    for file in town.b.directory.glob("akms.db*"):
        file.unlink()
    if before == "an older copy":
        shutil.copy(kept, store)
    await town.b.start()
    await town.tell(town.b, FROM_B)
    assert FROM_B.id in town.b.service.exposing._done
    assert usable(town) == set(new), "of what came since it has no record, and it was under other bits"
    await ask(town)


async def test_many_are_told_at_once_and_those_that_are_known_cost_nothing(town: Watched) -> None:
    await ask(town)
    told = [msgspec.structs.replace(FROM_B, id=identifier(), other=f"ckms-{number}") for number in range(3, 40)]
    await town.tell(town.b, *told, FROM_B)
    steps = town.b.steps
    await asyncio.sleep(0.2)
    await until(lambda: town.aaa.void)
    steps = town.b.steps
    await town.tell(town.b, *told, FROM_B)
    assert town.b.steps == steps


def test_the_message_names_neither_users_nor_keys_and_what_is_new_in_it_is_ignored() -> None:
    body = b'{"v":1,"exposures":[{"id":"1","other":"ckms-2","service_class":"gold","sends":true,"over":false,"new":1}]}'
    told = msgspec.json.decode(body, type=Exposed)
    assert told.exposures == [Exposure("1", "ckms-2", "gold", sends=True, over=False)]
    assert msgspec.structs.fields(Exposure)[0].name == "id"
    assert {field.name for field in msgspec.structs.fields(Exposure)} == {
        "id",
        "other",
        "service_class",
        "sends",
        "over",
    }
