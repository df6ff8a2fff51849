"""The network: which services there are, how they are joined, and what one run of it needs."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from tests.simulator.air import Air
from tests.simulator.carriers import CkmsProcess
from tests.simulator.controllers import ControllerProcess, database
from tests.simulator.lies import Lies
from tests.simulator.loop import OUTSIDE, SimulatedLoop
from tests.simulator.modules import ModulePair
from tests.simulator.oracle import Oracle
from tests.simulator.processes import (
    AaaProcess,
    AkmsProcess,
    SimulatedProcess,
    UkmsProcess,
    certificate,
    private_key,
)
from tests.simulator.settings import Settings

ACCESS = (("ukms-1", "akms-2"), ("ukms-7", "akms-2"))
FAR_ACCESS = (("ukms-6", "akms-5"),)
"""Initiator first. ukms-7 is the one that may lie; akms-9 has no node: it is the one that may be stolen."""

SQUARE = (("ckms-2", "ckms-3"), ("ckms-3", "ckms-5"), ("ckms-2", "ckms-4"), ("ckms-4", "ckms-5"))
LADDER = (
    ("ckms-2", "ckms-3"),
    ("ckms-2", "ckms-4"),
    ("ckms-3", "ckms-4"),
    ("ckms-3", "ckms-10"),
    ("ckms-4", "ckms-11"),
    ("ckms-10", "ckms-11"),
    ("ckms-10", "ckms-5"),
    ("ckms-11", "ckms-5"),
)
"""The links between carrier KMSs."""

PATHS = {
    SQUARE: (("ckms-2", "ckms-3", "ckms-5"), ("ckms-2", "ckms-4", "ckms-5")),
    LADDER: (("ckms-2", "ckms-3", "ckms-10", "ckms-5"), ("ckms-2", "ckms-4", "ckms-11", "ckms-5")),
}
"""Those of the configuration."""

CLASSICAL = frozenset(("ckms-3", "ckms-4"))
"""A link that has no QKD modules, by the plan of the controllers."""

WEAK = (CLASSICAL, frozenset(("ckms-10", "ckms-11")))
"""Links that may have no one-time pad."""

SERVICES = (
    "aaa-100",
    "ckms-2",
    "ckms-3",
    "ckms-4",
    "ckms-5",
    "akms-2",
    "akms-5",
    "ukms-1",
    "ukms-6",
    "ukms-7",
)

FURTHER = ("ckms-10", "ckms-11")

SAES = {
    "first-west-1": "ukms-1",
    "first-west-2": "ukms-1",
    "first-east-1": "ukms-6",
    "first-east-2": "ukms-6",
    "second-west": "ukms-1",
    "second-east": "ukms-6",
    "third-west": "ukms-7",
    "third-east": "ukms-6",
    "stolen-west": "ukms-9",
    "stolen-east": "ukms-6",
}

AKMS_OF = {"ukms-1": "akms-2", "ukms-7": "akms-2", "ukms-6": "akms-5", "ukms-9": "akms-9"}

ROLES: dict[str, type[SimulatedProcess]] = {
    "ukms": UkmsProcess,
    "akms": AkmsProcess,
    "ckms": CkmsProcess,
    "aaa": AaaProcess,
    "controller": ControllerProcess,
}

OVERHEARD = 256
"""Sets that a thief has heard."""

CLASSES = {"first": "silver", "second": "gold", "third": "bronze", "stolen": "silver"}


def directory() -> str:
    """The import file of AAA: every customer's SAEs may share with each other."""
    parts = []
    for customer, service_class in CLASSES.items():
        parts.append(f'[[customer]]\nid = "{customer}"')
        parts.append(f'[[contract]]\nid = "{customer}/c"\ncustomer = "{customer}"\nclass = "{service_class}"')
    parts += [f'[[site]]\nukms = "{ukms}"\nakms = "{akms}"\nkme = "kme-{ukms[5:]}"' for ukms, akms in AKMS_OF.items()]
    for sae, ukms in SAES.items():
        customer = sae.partition("-")[0]
        peers = [other for other in SAES if other != sae and other.startswith(customer)]
        parts.append(
            f'[[sae]]\nid = "{sae}"\nukms = "{ukms}"\ncontract = "{customer}/c"\n'
            f"peers = [{', '.join(repr(peer) for peer in peers)}]".replace("'", '"')
        )
    return "\n".join(parts)


@dataclass
class LinkPlan:
    """One link, as both ends are configured."""

    id: str
    initiator: str
    other: str
    quantum: bool
    modules: ModulePair
    suites: list[str]
    floor: str
    pool: int
    reserve: int
    rate: int
    rotate_messages: int


class World:
    """One run's network."""

    def __init__(self, seed: int, loop: SimulatedLoop, settings: Settings, faults: Any) -> None:
        self.seed = seed
        self.loop = loop
        self.settings = settings
        self.chance = Random(f"{seed} world")
        self.faults = faults
        self.oracle = Oracle(self)
        self.alarms: Counter[str] = Counter()
        self.begun: Callable[[SimulatedProcess], None] = lambda process: None
        """Told of each service that was put together, before anything reaches it."""
        self.links = (*ACCESS, *(LADDER if settings.ladder else SQUARE), *FAR_ACCESS)
        self.controllers = tuple(f"controller-{number}" for number in range(1, settings.controllers + 1))
        self.services = (*SERVICES, *(FURTHER if settings.ladder else ()), *self.controllers)
        self.paths = PATHS[LADDER if settings.ladder else SQUARE] if settings.static else ()
        """Those of the configuration."""
        self.aaa = "aaa-100"
        self.directory = directory()
        self.key_lifetime = settings.key_lifetime
        self.guard = settings.guard
        self.allowance = settings.allowance
        self.cn_minimum = settings.cn_minimum
        self.buffer_minimum = settings.buffer_minimum
        self.air = Air(Random(f"{seed} air"), faults, functools.partial(certificate, cheap=settings.cheap))
        self.plans: dict[frozenset[str], LinkPlan] = {}
        for one, other in self.links:
            self.plans[frozenset((one, other))] = self._plan(one, other)
        self.database = database(f"{seed:032x}", loop)
        """The controllers'."""
        self.offline: set[str] = set()
        """Controllers that cannot reach it."""
        self.lies = Lies(self)
        self.overheard: deque[tuple[str, Any]] = deque(maxlen=OVERHEARD)
        """Sets that were sent, whether they arrived or not, and to which node."""
        self.processes: dict[str, SimulatedProcess] = {
            service: ROLES[service.partition("-")[0]](self, service) for service in self.services
        }
        self.air.processes.update(self.processes)
        faults.join(self)

    def private_key(self, service: str) -> MLDSA65PrivateKey:
        """A service's signing key."""
        return private_key(service, cheap=self.settings.cheap)

    def plan(self, one: str, other: str) -> LinkPlan:
        """The link between two services."""
        return self.plans[frozenset((one, other))]

    def neighbours(self, service: str) -> list[str]:
        """The other ends of a service's links."""
        return [other for pair in self.links if service in pair for other in pair if other != service]

    def ukms(self, service: str) -> UkmsProcess:
        """A UKMS."""
        process = self.processes[service]
        assert isinstance(process, UkmsProcess)
        return process

    def ckms(self, service: str) -> CkmsProcess:
        """A carrier KMS."""
        process = self.processes[service]
        assert isinstance(process, CkmsProcess)
        return process

    @property
    def carriers(self) -> tuple[CkmsProcess, ...]:
        """All of those."""
        return tuple(process for process in self.processes.values() if isinstance(process, CkmsProcess))

    def controller(self, service: str) -> ControllerProcess:
        """A controller."""
        process = self.processes[service]
        assert isinstance(process, ControllerProcess)
        return process

    def leader(self) -> ControllerProcess | None:
        """The controller that leads now, as far as it knows."""
        for service in self.controllers:
            process = self.controller(service)
            if process.life is not None and process.serves and process.service.leader().leads:
                return process
        return None

    def later(self, seconds: float, work: Callable[..., Any], *arguments: Any) -> None:
        """Do something between the processes after some time."""
        self.loop.call_later(seconds, work, *arguments, context=OUTSIDE)

    def start(self) -> None:
        """Start every process."""
        for process in self.processes.values():
            process.start()

    def close(self) -> None:
        """Let go of the disks."""
        for process in self.processes.values():
            if process.disk is not self.database:
                process.disk.close()
        self.database.close()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds; False when it did not in so many simulated seconds."""
        end = self.loop.time() + seconds
        pause = 0.1
        while not condition():
            if self.loop.time() > end:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)
        return True

    def _plan(self, one: str, other: str) -> LinkPlan:
        chance = self.chance
        suites = chance.choice((["aes-256-gcm", "otp"], ["otp", "aes-256-gcm"], ["otp"]))
        ends = frozenset((one, other))
        if ends in WEAK and chance.random() < 0.5:
            suites = ["aes-256-gcm"]
        rates = (50.0, 400.0) if self.settings.static else (400.0, 1_600.0)
        floor = "otp" if suites == ["otp"] else "aes-256-gcm"
        pool = chance.choice((16_384, 65_536))
        modules = ModulePair(Random(f"{self.seed} {one} {other}"), rate=chance.choice(rates), count=self.faults.count)
        return LinkPlan(
            id=f"{one}-{other}",
            initiator=one,
            other=other,
            quantum=ends != CLASSICAL,
            modules=modules,
            suites=suites,
            floor=floor,
            pool=pool,
            reserve=chance.choice((1_024, 2_048)),
            rate=chance.choice((2_000, 20_000)),
            rotate_messages=chance.choice((20, 1_000_000)),
        )
