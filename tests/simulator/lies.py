"""A carrier KMS that tells its controllers what is not so: within its schema, and else whatever comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.tree import UNCHANGED, Edit, Undo, Writer

if TYPE_CHECKING:
    from tests.simulator.carriers import CkmsProcess
    from tests.simulator.world import World

LYING = "ckms-4"

LARGEST = 2**64 - 1

Sources = dict[str, Callable[[], Any]]


class Lies:
    """What `LYING` says and does, where the settings let it lie; each lie lasts a while."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = Random(f"{world.seed} lies")
        self._lie = ""
        self._seed = 0
        self._until = 0.0
        self.active = world.settings.lying_node and bool(world.controllers)
        """Whether it still lies."""
        self.told = False
        """Whether it ever has."""

    def told_by(self, process: CkmsProcess, sources: Sources, writer: Writer) -> tuple[Sources, Writer]:
        """What a node tells in the place of the truth, and what it does about a Set."""
        if process.name.id != LYING or not self.active:
            return sources, writer
        top = f"/{ckms.TOP}"
        false = {top: self._service, f"{top}/links": self._links, f"{top}/forwarding": self._forwarding}
        lying: Sources = {path: self._false(source, false[path]) for path, source in sources.items()}
        return lying, LyingWriter(self, writer)

    def drawn(self, probability: float) -> bool:
        """Whether to lie, once."""
        lies = self.active and self._chance.random() < probability
        if lies:
            self.told = True
        return lies

    def _false(self, honest: Callable[[], Any], lie: Callable[[Any, Random], Any]) -> Callable[[], Any]:
        def tell() -> Any:
            said = honest()
            if not self.active or said is UNCHANGED:
                return said
            now = self._world.loop.time()
            if now >= self._until:
                self._until = now + self._chance.uniform(0.5, 8.0)
                self._lie = self._chance.choice((*KINDS, "", "", ""))
                self._seed = self._chance.getrandbits(32)
                if self._lie:
                    self.told = True
                    self._world.faults.count(f"node lies: {self._lie}")
            return lie(said, Random(f"{self._seed}"))

        return tell

    def _service(self, said: dict[str, Any], chance: Random) -> dict[str, Any]:
        match self._lie:
            case "name":
                return said | {"service-id": chance.choice(("ckms-3", "ckms-5", "ckms-99"))}
            case "process":
                return said | {"incarnation": chance.randbytes(16).hex()}
        return said

    def _links(self, said: dict[str, Any], chance: Random) -> dict[str, Any]:
        links: list[dict[str, Any]] = said["link"]
        match self._lie:
            case "figures":
                links = [link | _figures(link, chance) for link in links]
            case "links":
                links = [link | _properties(link, chance) for link in links]
            case "neighbours":
                names = ["ckms-2", "ckms-3", "ckms-5", "ckms-10", "ckms-77"]
                chance.shuffle(names)
                links = [link | {"neighbour": name} for link, name in zip(links, names, strict=False)]
                links = links[chance.randrange(2) :]
        return {"link": links}

    def _forwarding(self, said: dict[str, Any], chance: Random) -> dict[str, Any]:
        match self._lie:
            case "how far statements have come":
                far = (0, 1, said["epoch"] + 1, said["epoch"] + 2_000, 2**62, LARGEST)
                return said | {"epoch": chance.choice(far), "serial": chance.choice((0, 2**31, 2**62, LARGEST))}
            case "what holds":
                return said | {
                    name: [_other_serial(row, chance) for row in said[name] if chance.random() < 0.6]
                    for name in ("entry", "path")
                }
        return said


KINDS = ("name", "process", "figures", "links", "neighbours", "how far statements have come", "what holds")


class LyingWriter:
    """Takes statements and forgets them, or refuses them for reasons that are none."""

    def __init__(self, lies: Lies, honest: Writer) -> None:
        self._lies = lies
        self._honest = honest

    async def write(self, edits: Sequence[Edit]) -> Undo:
        """See `Writer`."""
        if self._lies.drawn(0.1):
            return _nothing
        if self._lies.drawn(0.1):
            raise Refused(Code.FAILED_PRECONDITION, "old-epoch: another leads")
        if self._lies.drawn(0.05):
            raise Refused(Code.FAILED_PRECONDITION, "unfit: no")
        return await self._honest.write(edits)


async def _nothing() -> None:
    raise AssertionError("nothing was done")


def _figures(link: Mapping[str, Any], chance: Random) -> dict[str, Any]:
    figures = (0, 1, 1_000, 10**9, 2**63, LARGEST)
    pools = [pool | {name: chance.choice(figures) for name in pool if name != "direction"} for pool in link["pool"]]
    return {
        "rate": chance.choice(figures),
        "qber": chance.choice((0.0, 0.5, 1.0, 9e9)),
        "latency": chance.choice((0, 2**32 - 1)),
        "pool": pools[chance.randrange(2) :],
    }


def _properties(link: Mapping[str, Any], chance: Random) -> dict[str, Any]:
    return {
        "id": chance.choice((link["id"], link["id"], "ckms-2-ckms-3", "no-link")),
        "up": chance.random() < 0.5,
        "enabled": chance.random() < 0.5,
        "quantum": chance.random() < 0.5,
        "suite": chance.choice(("otp", "aes-256-gcm", "ml-kem", "hybrid")),
        "suites": chance.choice(([], ["otp"], ["otp", "aes-256-gcm", "ml-kem", "hybrid"])),
    }


def _other_serial(row: Mapping[str, Any], chance: Random) -> dict[str, Any]:
    return {**row, "serial": chance.choice((row["serial"], row["serial"], chance.getrandbits(62)))}
