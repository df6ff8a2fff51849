"""One term of leadership: the steering core, its effects carried out in order, and the time that passes for it.

Effects are carried out in batches. Of a batch everything that is to be remembered is written in one transaction,
statements that are about to be sent among it; then they are sent, to all their nodes at the same time. What the core
decides meanwhile is the next batch. So the database's latency is paid once for each step of an installation, however
many demands take it together.

Only the leader of the lease's epoch can write, and statements carry that epoch: a controller that was frozen and goes
on finds that it can neither record nor steer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from sqlalchemy import Connection

from controller.changes import Change, changes
from controller.installing import Node, Outcome, ReadBack, Result, Signed, read, send, sign_all
from controller.outdated import Number, Outdated
from controller.remembering import Batch, remembered
from controller.state.leading import Leadership, NotLeading
from controller.state.serials import Serials
from controller.steering.effects import Effect, Note, Read, Tell
from controller.steering.steering import Steering
from controller.topology import Discovery
from keyhaul.agents.gnmi.failures import TargetError
from keyhaul.agents.statements import StatementRefusal
from keyhaul.database.errors import DatabaseUnavailable

Written = TypeVar("Written")

log = structlog.get_logger(__name__)

TICK = 0.25
"""Seconds between two looks at what is due."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds before the database is tried again."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a term needs of the controller around it."""

    own: str
    """Service id of this controller."""
    leadership: Leadership
    key: MLDSA65PrivateKey
    """Signs statements."""
    nodes: Callable[[], Mapping[str, tuple[str, Node]]]
    """CKMSs that tell: by service id their process's incarnation, and the way to them."""
    reach: Callable[[str], Node | None]
    """The way to a planned CKMS."""
    alarm: Callable[..., None]
    told: Callable[[], None]
    """An event was recorded."""
    outcomes: Counter[Result]
    """What became of what was told to nodes."""
    outdated: Outdated
    clock: Callable[[], float] = time.monotonic


class Term:
    """Leads in one epoch; `run` does the work.

    Args:
        epoch: of the lease.
        steering: the core, which knows nothing yet.
        around: the rest of the controller.
    """

    def __init__(self, epoch: int, steering: Steering, around: Around) -> None:
        self.epoch = epoch
        self.steering = steering
        self.begun = False
        """Whether it knows what earlier leaders promised and installed."""
        self.since = around.clock()
        """When it began."""
        self._around = around
        self._serials = Serials(around.leadership)
        self._queue: deque[Effect] = deque()
        self._batch = Batch()
        """What may not be in the database yet of what left the queue."""
        self._wake = asyncio.Event()
        self._behind = asyncio.Event()
        self._seen: Discovery | None = None
        self._group: asyncio.TaskGroup | None = None
        self._told: dict[str, int] = {}
        """The highest serial of what each node was told, or is about to be."""

    async def run(self) -> None:
        """Lead until cancelled, or until another controller does."""
        try:
            memory = await self._persist(remembered)
            now = self._around.clock()
            self.steering.led(self.epoch, memory, now)
            if self._seen is not None:
                self.steering.see(self._seen, now)
            for node, (incarnation, _) in self._around.nodes().items():
                self.steering.appeared(node, incarnation, now)
            self.begun = True
            self._queue.append(Note(Change.LEADS, self._around.own, {"epoch": self.epoch}))
            self.drain()
            self._wake.set()
            log.info("leading", epoch=self.epoch, demands=len(memory.promises), statements=len(memory.statements))
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._carry(), name="effects")
                self._group.create_task(self._tick(), name="tick")
                self._group.create_task(self._go_on(), name="urgent")
        except* NotLeading:
            log.warning("leads no more", epoch=self.epoch)
        finally:
            self.begun = False
            await self._leave()

    def drain(self) -> None:
        """Have carried out what the core decided."""
        if effects := self.steering.effects():
            self._queue.extend(effects)
            self._wake.set()
        if self.steering.behind:
            self._behind.set()

    def see(self, found: Discovery) -> None:
        """The network is believed to be like this now."""
        before, self._seen = self._seen, found
        if self.begun:
            self.steering.see(found, self._around.clock())
            self.drain()
            if notes := list(changes(before, found)):
                self._queue.extend(notes)
                self._wake.set()

    def appeared(self, node: str, incarnation: str) -> None:
        """A node tells, or is another process."""
        if self.begun:
            self.steering.appeared(node, incarnation, self._around.clock())
            self.drain()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.steering.tick(self._around.clock())
            self.drain()

    async def _go_on(self) -> None:
        """Do what is urgent part by part: others have their turn in between."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            self.steering.go_on(self._around.clock())
            self.drain()
            await asyncio.sleep(0)

    async def _carry(self) -> None:
        assert self._group is not None
        while True:
            await self._wake.wait()
            self._wake.clear()
            effects, self._queue = tuple(self._queue), deque()
            self._batch = Batch.unsaid(effects)
            signed = await self._sign([effect for effect in effects if isinstance(effect, Tell)])
            self._batch = batch = Batch(effects, tuple(signed))
            if batch:
                await self._persist(batch.write)
            self._batch = Batch()
            if batch.identities:
                self._around.told()
            for one in signed:
                self._group.create_task(self._send(one), name=f"tell {one.tell.node}")
            for effect in effects:
                if isinstance(effect, Read):
                    self._group.create_task(self._read(effect), name=f"read {effect.node}")
                elif isinstance(effect, Note):
                    log.info(effect.kind, subject=effect.subject, **dict(effect.facts))

    async def _leave(self) -> None:
        """Have remembered, as long as the lease is held, what was decided and is not said any more."""
        batches = (self._batch, Batch.unsaid(self._queue))
        try:
            for batch in filter(None, batches):
                await self._around.leadership.transact(batch.write)
        except (NotLeading, DatabaseUnavailable) as error:
            log.warning("what was decided last is not recorded", why=str(error))

    async def _sign(self, tells: Sequence[Tell]) -> list[Signed]:
        """Sign what is to be told; what no node would accept is refused here."""
        signed: list[Signed] = []
        if not tells:
            return signed
        epoch, serials = await self._numbers(sum(len(tell.says) for tell in tells))
        numbers = iter(serials)
        parts = [(tell, [next(numbers) for _ in tell.says]) for tell in tells]
        self._told |= {tell.node: own[-1] for tell, own in parts}
        for tell, one in zip(tells, await asyncio.to_thread(sign_all, parts, epoch, self._around.key), strict=True):
            if isinstance(one, Signed):
                signed.append(one)
                continue
            log.error("a statement that no node would accept", node=tell.node, why=str(one))
            self.steering.refused(tell.sending, one.refusal, self._around.clock())
            self.drain()
        return signed

    async def _numbers(self, number: int) -> tuple[int, range]:
        pause = FIRST_PAUSE
        while True:
            try:
                epoch, serials = await self._serials.take(number)
            except DatabaseUnavailable as error:
                pause = await self._unavailable(error, pause)
                continue
            if epoch != self.epoch:
                raise NotLeading(f"epoch {epoch} has begun, this was {self.epoch}")
            return epoch, serials

    async def _send(self, signed: Signed) -> None:
        tell = signed.tell
        outcome = await send(self._around.reach(tell.node), signed)
        self._around.outcomes[outcome.result] += 1
        now = self._around.clock()
        match outcome:
            case Outcome(Result.CONFIRMED):
                self.steering.confirmed(tell.sending, signed.serials, now)
            case Outcome(Result.REFUSED, why, refusal):
                self._around.alarm("statements-not-accepted", node=tell.node, why=why)
                self.steering.refused(tell.sending, refusal, now, signed.serials)
                if refusal in (StatementRefusal.OLD_EPOCH, StatementRefusal.REPLAYED):
                    await self._ask_how_far(tell.node)
            case Outcome(result, why):
                log.warning("node was not told", node=tell.node, why=why)
                arrived = signed.serials if result is Result.UNKNOWN else ()
                self.steering.unreachable(tell.sending, arrived, now)
        self.drain()

    async def _read(self, effect: Read) -> None:
        there = await self._read_back(effect.node)
        if there is None:
            self.steering.unread(effect.reading, self._around.clock())
        else:
            await self._surpass(effect.node, there)
            self.steering.found(effect.reading, there.incarnation, there.statements, self._around.clock())
        self.drain()

    async def _read_back(self, name: str) -> ReadBack | None:
        node = self._around.reach(name)
        try:
            if node is None:
                raise TargetError(f"{name}: not planned")
            return await read(node)
        except TargetError as error:
            log.warning("node was not read", node=name, why=str(error))
            return None

    async def _ask_how_far(self, node: str) -> None:
        """A node has accepted what is later than what it was told: another leads, or the database forgot."""
        if (there := await self._read_back(node)) is not None:
            await self._surpass(node, there)

    async def _surpass(self, node: str, there: ReadBack) -> None:
        """Where a node is ahead of the database, begin a later epoch: this term ends."""
        ahead = self._around.outdated.ahead(node, there, Number(self.epoch, self._told.get(node, 0)))
        if ahead is None:
            return
        try:
            await self._around.leadership.surpass(*ahead)
        except DatabaseUnavailable as error:
            self._around.alarm("database-unavailable", why=str(error))
        else:
            self._around.outdated.surpassed(node, ahead)

    async def _persist(self, work: Callable[[Connection], Written]) -> Written:
        """Write until it is written; whoever cannot write does not lead for long.

        Raises:
            NotLeading: another controller leads.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._around.leadership.transact(work)
            except DatabaseUnavailable as error:
                pause = await self._unavailable(error, pause)

    async def _unavailable(self, error: DatabaseUnavailable, pause: float) -> float:
        self._around.alarm("database-unavailable", why=str(error))
        await asyncio.sleep(pause)
        return min(LONGEST_PAUSE, 2 * pause)
