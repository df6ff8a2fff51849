"""The network: which services there are, how they are joined, and what one run of it needs."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from tests.simulator.air import Air
from tests.simulator.loop import OUTSIDE, SimulatedLoop
from tests.simulator.modules import ModulePair
from tests.simulator.oracle import Oracle
from tests.simulator.processes import ROLES, SimulatedProcess, UkmsProcess, certificate, private_key
from tests.simulator.settings import Settings

LINKS = (
    ("ukms-1", "akms-2"),
    ("ukms-7", "akms-2"),
    ("ckms-2", "ckms-3"),
    ("ckms-3", "ckms-5"),
    ("ckms-2", "ckms-4"),
    ("ckms-4", "ckms-5"),
    ("ukms-6", "akms-5"),
)
"""Initiator first. ukms-7 is the one that may lie; akms-9 has no node: it is the one that may be stolen."""

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
        self.services = SERVICES
        self.aaa = "aaa-100"
        self.directory = directory()
        self.key_lifetime = settings.key_lifetime
        self.guard = settings.guard
        self.allowance = settings.allowance
        self.cn_minimum = settings.cn_minimum
        self.buffer_minimum = settings.buffer_minimum
        self.air = Air(Random(f"{seed} air"), faults, functools.partial(certificate, cheap=settings.cheap))
        self.plans: dict[frozenset[str], LinkPlan] = {}
        for one, other in LINKS:
            self.plans[frozenset((one, other))] = self._plan(one, other)
        self.processes: dict[str, SimulatedProcess] = {
            service: ROLES[service.partition("-")[0]](self, service) for service in SERVICES
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
        return [other for pair in LINKS if service in pair for other in pair if other != service]

    def ukms(self, service: str) -> UkmsProcess:
        """A UKMS."""
        process = self.processes[service]
        assert isinstance(process, UkmsProcess)
        return process

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
            process.disk.close()

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
        floor = "otp" if suites == ["otp"] else "aes-256-gcm"
        pool = chance.choice((16_384, 65_536))
        modules = ModulePair(
            Random(f"{self.seed} {one} {other}"), rate=chance.choice((50.0, 400.0)), count=self.faults.count
        )
        return LinkPlan(
            id=f"{one}-{other}",
            initiator=one,
            modules=modules,
            suites=suites,
            floor=floor,
            pool=pool,
            reserve=chance.choice((1_024, 2_048)),
            rate=chance.choice((2_000, 20_000)),
            rotate_messages=chance.choice((20, 1_000_000)),
        )
