"""Telemetry: a subscription at every planned CKMS, dialled again when it ends, and what each has told so far.

Nodes that are lost together are not dialled again together: pauses grow and are drawn at random. A node that falls
silent is given up and its facts age (`controller.rhythm`): silence is never good news.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import AsyncExitStack, aclosing
from enum import StrEnum

import structlog

from controller.facts import NodeReport
from controller.reported import Reported, wanted
from controller.rhythm import Rhythm
from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.failures import Silent, TargetError, Unprotected
from keyhaul.agents.gnmi.notices import Notice
from keyhaul.identity.names import ServiceName
from keyhaul.randomness import Source, fraction, random_bytes
from keyhaul.transport.tls import TlsFiles
from keyhaul.transport.tls_policy import TlsUnusable

log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
"""Seconds before a node is dialled again; half of that at least passes."""

DIALLED_A_SECOND = 200
"""Nodes, at the start: the first dials are spread."""

DIALLED_AT_ONCE = 64
"""Nodes that are dialled and have not told everything yet, of those that answered when they were dialled before, and of
the others: a controller that is slower than its patience with each would otherwise come to an end with none."""


class NodeState(StrEnum):
    """How a node stands with this controller."""

    DIALLING = "dialling"
    """It is being dialled, or will be after a pause."""
    TELLING = "telling"
    """It has told all that there is, and tells what changes."""


class Followed:
    """One CKMS, its connection and what it told."""

    def __init__(self, node: str, address: str, client: Client) -> None:
        self.node = node
        self.address = address
        self.client = client
        """For calls beside the subscription."""
        self.state = NodeState.DIALLING
        self.reported = Reported(node)
        self.task: asyncio.Task[None] | None = None
        self.answers = True
        """Whether it told everything when it was dialled before."""
        self.dialled = float("-inf")
        """When it was dialled last."""
        self._report: NodeReport | None = None

    @property
    def report(self) -> NodeReport:
        """What it told."""
        if self._report is None:
            self._report = self.reported.report
        return self._report

    def told(self) -> None:
        """Something came."""
        self._report = None


class Telemetry:
    """Follows the planned CKMSs.

    Args:
        domain: the operator's.
        files: this controller's classic certificate and key, and the authority of the CKMSs' ones.
        urgent: told of a node that told something to act on at once.
        joined: told of a node that has told all that there is, after each dial.
        lost: told of a node whose subscription ended.
        clock: seconds for which nodes were listened to; by it they are silent.
        source: randomness for the pauses.
        at_once: how many nodes are dialled at a time.
        rhythm: how often so many nodes are asked to tell.
    """

    def __init__(
        self,
        domain: str,
        files: TlsFiles,
        *,
        urgent: Callable[[str], None],
        joined: Callable[[str], None],
        lost: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        source: Source = random_bytes,
        at_once: int = DIALLED_AT_ONCE,
        rhythm: Callable[[int], Rhythm] = Rhythm.of,
    ) -> None:
        self._domain = domain
        self._files = files
        self._urgent = urgent
        self._joined = joined
        self._lost = lost
        self._clock = clock
        self._rhythm = rhythm
        self._source = source
        self._nodes: dict[str, Followed] = {}
        self._reports: dict[str, NodeReport] = {}
        self._dialling = {answers: asyncio.Semaphore(at_once) for answers in (True, False)}
        self._told: set[str] = set()
        """Nodes that have told something, or are followed no more, since `news` was called."""
        self._leaving: set[asyncio.Task[None]] = set()
        self.failures: Counter[str] = Counter()
        """Subscriptions that ended, by how."""
        self.messages = 0

    @property
    def nodes(self) -> Mapping[str, Followed]:
        """All that are followed, by service id."""
        return self._nodes

    @property
    def reports(self) -> Mapping[str, NodeReport]:
        """What each has told so far, those that never told anything left out."""
        for node in self._told:
            followed = self._nodes.get(node)
            if followed is None:
                self._reports.pop(node, None)
            else:
                self._reports[node] = followed.report
        return self._reports

    def news(self) -> tuple[Mapping[str, NodeReport], Set[str]]:
        """The reports, and the nodes of which they are others than when this was called last, or gone."""
        reports, told, self._told = self.reports, self._told, set()
        return reports, told

    @property
    def unreadable(self) -> int:
        """Values of all nodes that could not be read."""
        return sum(followed.reported.unreadable for followed in self._nodes.values())

    def follow(self, targets: Mapping[str, str]) -> None:
        """Follow these from now on: address by service id. Those that are followed already there are left alone."""
        for node, followed in tuple(self._nodes.items()):
            if targets.get(node) != followed.address:
                del self._nodes[node]
                self._told.add(node)
                leaving = asyncio.create_task(_leave(followed), name=f"leaving {node}")
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
        new = [node for node in targets if node not in self._nodes]
        for node in new:
            client = Client(targets[node], ServiceName.of(self._domain, node), self._files)
            followed = self._nodes[node] = Followed(node, targets[node], client)
            spread = len(new) / DIALLED_A_SECOND
            followed.task = asyncio.create_task(self._follow(followed, spread), name=f"telemetry {node}")

    def failed(self) -> Iterator[BaseException]:
        """Errors that nobody foresaw, of tasks that follow a node."""
        for followed in self._nodes.values():
            task = followed.task
            if task is not None and task.done() and not task.cancelled() and (error := task.exception()) is not None:
                yield error

    async def close(self) -> None:
        """Follow nothing any more."""
        self.follow({})
        while self._leaving:
            await asyncio.wait(tuple(self._leaving))

    async def _follow(self, followed: Followed, spread: float) -> None:
        await asyncio.sleep(spread * fraction(self._source))
        pause = FIRST_PAUSE
        while True:
            try:
                await self._listen(followed)
            except (TargetError, TlsUnusable) as error:
                self._ended(followed, error)
            if self._clock() - followed.dialled > 2 * LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * (0.5 + 0.5 * fraction(self._source)))
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _listen(self, followed: Followed) -> None:
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(self._dialling[followed.answers])
            followed.dialled, followed.answers = self._clock(), False
            rhythm = self._rhythm(len(self._nodes))
            followed.reported.begin(rhythm)
            subscription = followed.client.subscribe(wanted(rhythm), silence=rhythm.silence, clock=self._clock)
            async with aclosing(subscription) as notices:
                async for notice in notices:
                    self._take(followed, notice)
                    if notice.synced:
                        followed.answers = True
                        await turn.aclose()

    def _take(self, followed: Followed, notice: Notice) -> None:
        self.messages += 1
        urgent = followed.reported.take(notice, self._clock())
        followed.told()
        self._told.add(followed.node)
        if notice.synced:
            followed.state = NodeState.TELLING
            log.info("node tells", node=followed.node)
            self._joined(followed.node)
        elif urgent and followed.state is NodeState.TELLING:
            self._urgent(followed.node)

    def _ended(self, followed: Followed, error: Exception) -> None:
        self.failures[type(error).__name__.lower()] += 1
        was, followed.state = followed.state, NodeState.DIALLING
        if was is NodeState.TELLING or isinstance(error, Silent | Unprotected):
            log.warning("node does not tell any more", node=followed.node, why=str(error))
            self._lost(followed.node)


async def _leave(followed: Followed) -> None:
    if followed.task is not None:
        followed.task.cancel()
        await asyncio.gather(followed.task, return_exceptions=True)
    await followed.client.close()
