"""The first words of a process with its AKMS, and what becomes of a store that is an older copy."""

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyhaul.identity.names import SaeId
from keyhaul.keys.etsi014 import KeyContainer, KeyRequest
from keyhaul.transport.messages.access import Push, Reported
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Query, VoidKeys
from keyhaul.transport.operations import ACCESS_REPORT, DELIVERY_PUSH, DELIVERY_QUERY, DELIVERY_VOID
from services.ukms import standing, upkeep
from services.ukms.buffer import Policy
from services.ukms.etsi014 import Refusal
from services.ukms.standing import is_older

A, B = SaeId("a"), SaeId("b")
OWN, OTHER = "a" * 32, "b" * 32
ANYTHING = KeyRequest()


def held(number: int = 3) -> Push:
    return Push(
        batch=uuid.uuid4().hex,
        master="a",
        slaves=["b"],
        held_for=["b"],
        key_ids=[uuid.uuid4() for _ in range(number)],
        size=256,
        service_class="silver",
        lifetime_ms=3_600_000,
    )


def ids(container: KeyContainer) -> list[uuid.UUID]:
    return [key.key_ID for key in container.keys]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def refused(work: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value


async def code_of(work: Any) -> ErrorCode:
    with pytest.raises(ServiceError) as caught:
        await work
    return caught.value.code


def unreachable(_report: Any) -> Reported:
    raise ServiceError(ErrorCode.UNREACHABLE)


class Life:
    """One UKMS through several processes on one store, which can be copied and put back."""

    def __init__(self, sites: Any, key_bits: Any) -> None:
        self.sites = sites
        self.key_bits = key_bits
        self.site: Any = None
        self.link: Any = None
        self.copies = 0
        self.alarms: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, **options: Any) -> Any:
        self.site = await self.sites.make(link=self.link, **options)
        if self.link is None:
            self.link = self.site.link
            self.link.permit("a", "b")
        return self.site

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.alarms += self.site.alarms
        await self.sites.made.pop().close()

    async def restart(self, **options: Any) -> Any:
        await self.end()
        return await self.start(**options)

    def run(self) -> None:
        self._tasks.append(asyncio.create_task(self.site.upkeep.run()))

    def copy(self) -> Path:
        """The store's files as they are at this moment."""
        self.copies += 1
        place: Path = self.sites.directory / f"copy-{self.copies}"
        place.mkdir()
        for file in self.sites.directory.glob("store.db*"):
            if not file.name.endswith((".key", ".lock", "-shm")):
                shutil.copy(file, place)
        return place

    async def put_back(self, place: Path, **options: Any) -> Any:
        await self.end()
        for file in self.sites.directory.glob("store.db*"):
            if not file.name.endswith(".key"):
                file.unlink()
        for file in place.iterdir():
            shutil.copy(file, self.sites.directory)
        return await self.start(**options)

    async def hold(self, push: Push) -> Any:
        secret = b"".join(self.key_bits(one) for one in push.key_ids)
        return await self.link.deliver(DELIVERY_PUSH, push, secret)

    async def stock(self, number: int = 8) -> list[uuid.UUID]:
        """Keys for SAE a come into its buffer, and are left there."""
        self.link.serving = False
        self.link.came.clear()
        waiting = asyncio.create_task(self.site.kme.enc_keys(A, "b", KeyRequest(number=number)))
        request = await self.link.wait_for_request()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        push, _ = await self.link.push(request)
        return list(push.key_ids)

    def stored(self) -> int:
        return sum(buffer.stored for buffer in self.site.supply.buffers)


@pytest.fixture
def life(sites: Any, key_bits: Any) -> Life:
    return Life(sites, key_bits)


@pytest.mark.parametrize(
    ("opened", "known", "older"),
    [
        (7, Reported(store=OWN, generation=7), False),
        (7, Reported(store=OWN, generation=6), False),
        (7, Reported(store=OWN, generation=8), True),
        (7, Reported(store=OTHER, generation=1), True),
        (7, Reported(), False),
        (0, Reported(store=OTHER, generation=9), False),
        (0, Reported(store=OWN, generation=9), False),
    ],
)
def test_what_an_older_copy_is(opened: int, known: Reported, older: bool) -> None:
    assert is_older(OWN, opened, known) is older


async def test_before_it_is_open_nothing_comes_out_or_in(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "PATIENCE", 0.01)
    monkeypatch.setattr(upkeep, "PERIOD", 0.005)
    await life.start()
    there = held()
    await life.hold(there)
    await life.stock()
    life.site.clock.now += 7_200.0
    life.link.requested.clear()
    await life.restart(opened=False, policy=Policy(8, 64, 4.0))
    life.link.inquired.clear()
    report, life.link._report = life.link._report, unreachable
    life.run()
    life.site.upkeep.new_session()
    await until(lambda: len(life.link.inquired) > 2)
    for work in (life.site.kme.enc_keys(A, "b", ANYTHING), life.site.kme.dec_keys(B, "a", there.key_ids[:1])):
        refusal = await refused(work)
        assert (refusal.status, refusal.retry_after) == (503, 1)
    assert await code_of(life.hold(held())) is ErrorCode.BUSY
    assert await code_of(life.link.deliver(DELIVERY_VOID, VoidKeys(batch=there.batch))) is ErrorCode.BUSY
    assert await code_of(life.link.deliver(DELIVERY_QUERY, Query(batches=[there.batch]))) is ErrorCode.BUSY
    assert not life.link.requested
    assert not life.link.withdrawn
    assert (await life.site.kme.status(A, "b")).stored_key_count == 0
    assert not life.site.standing.is_open
    life.link._report = report
    await until(lambda: life.site.standing.is_open)
    await until(lambda: life.link.withdrawn)


async def test_a_request_that_comes_a_moment_too_early_waits(life: Life) -> None:
    await life.start()
    keys = await life.stock()
    await life.restart(opened=False)
    waiting = asyncio.create_task(life.site.kme.enc_keys(A, "b", ANYTHING))
    await asyncio.sleep(0)
    await life.site.opening.open()
    assert set(ids(await waiting)) <= set(keys)


async def test_after_a_plain_restart_everything_is_there(life: Life) -> None:
    await life.start()
    keys, there = await life.stock(), held()
    await life.hold(there)
    await life.site.upkeep.report()
    identity = life.site.store.store_id
    for _ in range(3):
        await life.restart()
        await life.site.upkeep.report()
    assert life.site.store.store_id == identity
    assert set(ids(await life.site.kme.enc_keys(A, "b", KeyRequest(number=8)))) == set(keys)
    assert len((await life.site.kme.dec_keys(B, "a", there.key_ids)).keys) == 3
    assert not [*life.alarms, *life.site.alarms]


async def test_the_inquiry_tells_nothing_and_may_be_lost(life: Life) -> None:
    """However often its answer is lost, what the AKMS knew before this process decides."""
    await life.start()
    await life.stock()
    await life.site.upkeep.report()
    await life.restart(opened=False)
    known = life.link.known
    life.link.away = ErrorCode.DEADLINE
    for _ in range(3):
        assert await code_of(life.site.opening.open()) is ErrorCode.DEADLINE
    life.link.away = None
    for _ in range(3):
        assert await life.site.opening._akms.known() == known
    assert {report.generation for report in life.link.inquired} == {0}
    await life.site.opening.open()
    assert life.link.known == known
    assert not life.site.alarms


async def test_an_akms_of_the_release_before_opens_without_the_check(life: Life) -> None:
    await life.start()
    keys = await life.stock()
    await life.restart(opened=False)
    answer = msgspec.json.decode(msgspec.json.encode(Accepted()), type=ACCESS_REPORT.reply)
    assert isinstance(answer, Reported)
    life.link.known = answer
    await life.site.opening.open()
    assert set(ids(await life.site.kme.enc_keys(A, "b", ANYTHING))) <= set(keys)


async def test_an_akms_that_lost_its_store_takes_nothing_away(life: Life) -> None:
    await life.start()
    keys = await life.stock()
    await life.site.upkeep.report()
    life.link.known = Reported()
    await life.restart()
    assert set(ids(await life.site.kme.enc_keys(A, "b", KeyRequest(number=8)))) == set(keys)
    assert not life.site.alarms


async def test_an_older_copy_gives_up_what_it_holds(life: Life) -> None:
    await life.start()
    there, keys = held(), await life.stock()
    await life.hold(there)
    await life.end()
    place = life.copy()
    await life.start()
    await life.site.upkeep.report()
    former = life.site.store.store_id
    await life.site.kme.enc_keys(A, "b", KeyRequest(number=8))
    await life.site.kme.dec_keys(B, "a", there.key_ids)
    await life.put_back(place)
    assert life.site.alarms == ["store-restored"]
    assert life.site.store.store_id != former
    assert life.link.known.store == life.site.store.store_id
    assert life.site.metrics.given_up._value.get() == 11
    assert await life.site.vault.at_hand() == []
    assert life.stored() == 0
    assert (await refused(life.site.kme.dec_keys(B, "a", there.key_ids[:1]))).status == 400
    life.link.serving = True
    assert not set(ids(await life.site.kme.enc_keys(A, "b", KeyRequest(number=8)))) & set(keys)


async def test_no_push_brings_back_what_was_given_up(life: Life) -> None:
    await life.start()
    there = held()
    await life.hold(there)
    life.link.serving = False
    waiting = asyncio.create_task(life.site.kme.enc_keys(A, "b", KeyRequest(number=2)))
    request = await life.link.wait_for_request()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await life.site.upkeep.report()
    place = life.copy()
    push, _ = await life.link.push(request)
    await life.put_back(place)
    assert life.site.alarms == ["store-restored"]
    assert await code_of(life.hold(there)) is ErrorCode.CONFLICT
    assert await code_of(life.hold(push)) is ErrorCode.NOT_FOUND
    assert life.stored() == 0


async def test_of_what_was_given_up_nobody_says_that_it_was_not_issued(life: Life) -> None:
    await life.start()
    there = held()
    await life.hold(there)
    life.link.serving = False
    waiting = asyncio.create_task(life.site.kme.enc_keys(A, "b", KeyRequest(number=2)))
    push, _ = await life.link.push(await life.link.wait_for_request())
    await asyncio.gather(waiting, return_exceptions=True)
    await life.end()
    place = life.copy()
    await life.start()
    await life.site.upkeep.report()
    await life.put_back(place)
    await life.site.upkeep.report()
    assert life.link.reported[-1].unsettled == []
    for batch in (push, there):
        answer = await life.link.deliver(DELIVERY_VOID, VoidKeys(batch=batch.batch, key_ids=batch.key_ids))
        assert (answer.voided, set(answer.issued)) == ([], set(batch.key_ids))
        assert answer.store == life.site.store.store_id
    states = await life.link.deliver(DELIVERY_QUERY, Query(batches=[push.batch, there.batch]))
    assert states.states == [BatchState.RELEASED, BatchState.HELD]


async def test_a_copy_made_while_keys_went_out_of_the_buffer_is_known_once_that_was_told(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No push, no request, no session: only the report on what was handed out tells the AKMS."""
    monkeypatch.setattr(upkeep, "TELLING", 0.005)
    await life.start()
    await life.stock()
    life.run()
    life.site.upkeep.new_session()
    await until(lambda: life.link.reported)
    place = life.copy()
    before = len(life.link.requested)
    issued = ids(await life.site.kme.enc_keys(A, "b", KeyRequest(number=2)))
    told = life.site.store.generation
    await until(lambda: life.link.known.generation >= told)
    assert len(life.link.requested) == before
    await life.put_back(place)
    assert life.site.alarms == ["store-restored"]
    assert life.stored() == 0
    assert issued


async def test_a_slaves_site_tells_of_what_was_fetched(life: Life) -> None:
    await life.start()
    there = held()
    await life.hold(there)
    place = life.copy()
    await life.site.kme.dec_keys(B, "a", there.key_ids)
    await life.site.upkeep.tell()
    await life.put_back(place)
    assert life.site.alarms == ["store-restored"]
    assert (await refused(life.site.kme.dec_keys(B, "a", there.key_ids))).status == 400


async def test_only_keys_that_were_handed_out_are_told_of(life: Life) -> None:
    await life.start()
    await life.site.upkeep.report()
    reports = len(life.link.reported)
    await life.site.vault.settle(["0" * 32])
    await life.site.store.write(lambda c: c.exec_driver_sql("update batches set settled = 1") and None)
    await life.hold(held())
    for _ in range(3):
        await life.site.upkeep.tell()
    assert len(life.link.reported) == reports
    await life.site.kme.enc_keys(A, "b", ANYTHING)
    await until(lambda: not life.link.tasks)
    await life.site.upkeep.tell()
    assert len(life.link.reported) == reports, "the push that brought the keys had told"
    await life.stock()
    await life.site.kme.enc_keys(A, "b", ANYTHING)
    for _ in range(3):
        await life.site.upkeep.tell()
    assert len(life.link.reported) == reports + 1


async def test_a_value_that_did_not_arrive_is_told_again(life: Life) -> None:
    await life.start()
    await life.stock()
    await life.site.kme.enc_keys(A, "b", ANYTHING)
    life.link.away = ErrorCode.UNREACHABLE
    with pytest.raises(ServiceError):
        await life.site.upkeep.tell()
    life.link.away = None
    await life.site.upkeep.tell()
    assert life.link.known.generation == life.site.store.generation


async def test_messages_carry_how_far_the_store_is(life: Life) -> None:
    await life.start()
    life.link.serving = False
    waiting = asyncio.create_task(life.site.kme.enc_keys(A, "b", ANYTHING))
    request = await life.link.wait_for_request()
    _, answer = await life.link.push(request)
    await waiting
    void = await life.link.deliver(DELIVERY_VOID, VoidKeys(batch="0" * 32))
    assert 0 < request.generation < answer.generation < void.generation <= life.site.store.generation


async def test_the_same_copy_put_back_twice_is_found_twice(life: Life) -> None:
    await life.start()
    keys = await life.stock()
    await life.end()
    place = life.copy()
    await life.start()
    await life.site.upkeep.report()
    identities = {life.site.store.store_id}
    for times in (1, 2, 3):
        await life.put_back(place)
        assert life.site.alarms == ["store-restored"]
        assert life.stored() == 0
        identities.add(life.site.store.store_id)
        assert len(identities) == times + 1
        life.link.serving = True
        assert not set(ids(await life.site.kme.enc_keys(A, "b", ANYTHING))) & set(keys)


async def test_a_copy_of_a_renewed_store_is_found_too(life: Life) -> None:
    await life.start()
    await life.stock()
    await life.end()
    first = life.copy()
    await life.start()
    await life.site.upkeep.report()
    await life.put_back(first)
    await life.stock()
    await life.end()
    second = life.copy()
    await life.start()
    await life.site.upkeep.report()
    assert life.stored() == 8
    await life.put_back(second)
    assert life.site.alarms == ["store-restored"]
    assert life.stored() == 0


async def test_a_death_between_giving_up_and_telling_is_made_up_for(life: Life) -> None:
    await life.start()
    keys = await life.stock()
    await life.end()
    place = life.copy()
    await life.start()
    await life.site.upkeep.report()
    known = life.link.known
    await life.put_back(place, opened=False)
    await life.site.opening._give_up("akms")
    await life.restart(opened=False)
    assert life.link.known == known
    assert await life.site.vault.at_hand() == []
    await life.site.opening.open()
    assert life.link.known.store == life.site.store.store_id != known.store
    life.link.serving = True
    assert not set(ids(await life.site.kme.enc_keys(A, "b", ANYTHING))) & set(keys)
    await life.restart()
    assert not life.site.alarms


async def test_a_store_made_anew_is_no_older_copy_and_opens_once_the_akms_knows_of_it(life: Life) -> None:
    await life.start(opened=False)
    life.link.known = Reported(store=OTHER, generation=99)
    await life.site.opening.open()
    assert life.link.known.store == life.site.store.store_id
    assert not life.site.alarms
    keys = await life.stock()
    await life.restart()
    assert not life.site.alarms
    assert set(ids(await life.site.kme.enc_keys(A, "b", ANYTHING))) <= set(keys)


async def test_a_store_made_anew_stays_closed_until_its_identity_was_taken(life: Life) -> None:
    await life.start(opened=False)
    life.link.known = Reported(store=OTHER, generation=99)
    report = life.link._report

    def refuse(message: Any) -> Reported:
        if not message.inquiry:
            raise ServiceError(ErrorCode.BUSY)
        answer: Reported = report(message)
        return answer

    life.link._report = refuse
    assert await code_of(life.site.opening.open()) is ErrorCode.BUSY
    assert not life.site.standing.is_open
    life.link._report = report
    await life.site.opening.open()
    assert life.site.standing.is_open


async def test_what_the_link_finds_is_given_up_once(life: Life) -> None:
    """The AKMS was told nothing since the copy; its record of the link's pads is ahead all the same."""
    await life.start()
    await life.stock()
    await life.restart(opened=False)
    former = life.site.store.store_id
    life.link.known = Reported(store=former, generation=1)
    await asyncio.gather(*(life.site.opening.found_older() for _ in range(3)))
    renewed = life.site.store.store_id
    assert renewed != former
    await life.site.opening.open()
    assert life.site.alarms == ["store-restored"]
    assert life.link.known.store == life.site.store.store_id == renewed
    assert life.stored() == 0
    await life.stock()
    await life.site.opening.found_older()
    assert (life.stored(), life.site.alarms) == (8, ["store-restored"])


async def test_a_store_made_anew_has_nothing_to_give_up_by_the_link(life: Life) -> None:
    await life.start(opened=False)
    identity = life.site.store.store_id
    await life.site.opening.found_older()
    assert (life.site.store.store_id, life.site.alarms) == (identity, [])


async def test_later_sessions_do_not_close_it(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PERIOD", 0.005)
    await life.start(opened=False)
    life.run()
    life.site.upkeep.new_session()
    await until(lambda: life.link.reported)
    await life.stock()
    life.link.away = ErrorCode.UNREACHABLE
    life.site.upkeep.new_session()
    assert len((await life.site.kme.enc_keys(A, "b", ANYTHING)).keys) == 1
    life.link.away = None
    await until(lambda: len(life.link.reported) == 2)
    assert len(life.link.inquired) == 1


async def test_terms_of_an_older_copy_are_not_relied_on(life: Life) -> None:
    await life.start()
    await life.stock()
    await life.end()
    place = life.copy()
    await life.start()
    await life.site.upkeep.report()
    await life.put_back(place)
    life.link.away = ErrorCode.UNREACHABLE
    life.site.kme._patience = 0.05
    assert (await refused(life.site.kme.enc_keys(A, "b", ANYTHING))).status == 503
    await life.restart(opened=False)
    assert not life.site.terms._entries
