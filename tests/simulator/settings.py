"""What one run is like: drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

GNMI_FAULTS = (
    "set lost",
    "set late",
    "set refused",
    "set answer lost",
    "set answer is an error",
    "get lost",
    "get late",
    "telemetry late",
    "telemetry lost",
)
"""What may become of a gNMI call or message. One of telemetry that is lost takes its connection along."""

MEDDLING = (
    "controller crashed",
    "controller frozen",
    "controllers' database put back",
    "controllers' database lost",
    "controller cut off from its database",
    "node cut off from the controllers",
    "half the network cut off from the controllers",
    "two links cut",
    "node in quarantine",
)
"""What is done to controllers, and to what is between them and their nodes."""

MESSAGE_FAULTS = ("lost", "doubled", "reordered", "delayed", "corrupted", "reset", "answer replayed")


@dataclass
class Settings:
    """Rates are events a second unless said otherwise."""

    seconds: float = 20.0
    """Simulated seconds with faults."""
    messages: dict[str, float] = field(default_factory=dict)
    """Probability of each fault, a message."""
    crash: float = 0.0
    crash_at_commit: float = 0.0
    """Probability, a commit, before it, within it and after it."""
    crash_at_step: float = 0.0
    """Probability, a step of any task or callback of a service, just before it."""
    disk_failure: float = 0.0
    """Probability, a commit."""
    put_back: float = 0.0
    lose: float = 0.0
    freeze: float = 0.0
    """A process stands still for some time, and goes on."""
    partition: float = 0.0
    clock: float = 0.0
    modules: float = 0.0
    replay: float = 0.0
    """Messages of some time ago: as they were, altered, to their sender, or to another service."""
    compromised_carrier: float = 0.0
    """Probability that the CKMS in the middle does harm to a batch."""
    liar: bool = False
    thief: bool = False
    squat: bool = False
    """Whether the thief voids batches whose names it cannot know, before their keys come."""
    lazy_disks: bool = False
    """Whether disks say that data are safe which a power cut still takes away; none of the rules can hold then."""
    lost_alone: float = 0.0
    """The second at which the AKMS `harmed` loses its store, and cannot reach others of its kind any more; 0: never.

    Until then its UKMSs never hear that what they hold for slaves is settled.
    """
    harmed: str = ""
    """The service whose store is put back or lost; "": one that is drawn, other than AAA."""
    pairs: int = 0
    """How many pairs of SAEs share keys, so that those are busy; 0: all."""
    cheap: bool = True
    """Whether signatures and the SQL of link states are replaced by cheaper ones."""
    controllers: int = 0
    """How many there are; 0: paths are those of the configuration."""
    ladder: bool = False
    """Whether more carrier KMSs, on longer ways, are between the access nodes, and links without QKD modules."""
    static: bool = True
    """Whether the configuration has paths as well."""
    gnmi: dict[str, float] = field(default_factory=dict)
    """Probability of each fault of `gnmi.FAULTS`, a call or message."""
    meddling: dict[str, float] = field(default_factory=dict)
    """Rate of each fault of `meddling.KINDS`."""
    wishes: float = 0.0
    """Rate at which access nodes want paths beside those for keys."""
    lying_node: bool = False
    """Whether a carrier KMS tells its controllers what is not so, and does not do what they say."""
    statement_thief: float = 0.0
    """Attempts a second of somebody who has a controller's certificate and what it said, and not its statement key."""
    requests: float = 2.0
    settle: float = 90.0
    """Simulated seconds within which everything agrees once keys flow again."""
    key_lifetime: float = 86_400.0
    guard: float = 600.0
    allowance: int = 100_000
    cn_minimum: int = 4_096
    buffer_minimum: int = 0


def drawn(seed: int, *, controllers: bool = True) -> Settings:
    """The settings of a seed: some kinds of fault, seldom all, at rates that leave something to go wrong."""
    chance = Random(f"{seed} settings")
    settings = Settings()
    settings.seconds = chance.choice((15.0, 30.0, 60.0))
    severity = chance.choice((0.05, 0.15, 0.3, 0.4))
    settings.messages = {kind: severity * chance.random() for kind in MESSAGE_FAULTS if chance.random() < 0.6}
    if chance.random() < 0.6:
        settings.crash = chance.choice((0.1, 0.6, 1.5))
        settings.crash_at_commit = chance.choice((0.0, 0.005, 0.02))
        settings.crash_at_step = chance.choice((0.0, 0.0003, 0.001))
    if chance.random() < 0.2:
        settings.disk_failure = 0.01
    if chance.random() < 0.3:
        settings.put_back = chance.choice((0.15, 0.5))
    if chance.random() < 0.25:
        settings.lose = chance.choice((0.1, 0.3))
    if chance.random() < 0.3:
        settings.freeze = 0.3
    if chance.random() < 0.4:
        settings.partition = chance.choice((0.3, 1.0))
    if chance.random() < 0.4:
        settings.clock = chance.choice((0.5, 3.0))
    if chance.random() < 0.6:
        settings.modules = chance.choice((2.0, 8.0))
    if chance.random() < 0.6:
        settings.replay = chance.choice((20.0, 80.0))
    if chance.random() < 0.35:
        settings.compromised_carrier = 0.3
    settings.liar = chance.random() < 0.3
    settings.thief = chance.random() < 0.3
    settings.requests = chance.choice((1.0, 3.0))
    if chance.random() < 0.3:
        settings.pairs, settings.requests = 2, 8.0
    if chance.random() < 0.25:
        settings.key_lifetime, settings.guard = 30.0, 6.0
    settings.allowance = chance.choice((100_000, 100_000, 40))
    settings.cn_minimum = chance.choice((0, 4_096))
    settings.buffer_minimum = chance.choice((0, 0, 8))
    settings.cheap = chance.random() < 0.9
    if controllers:
        _steered(settings, Random(f"{seed} controllers"))
    return settings


def _steered(settings: Settings, chance: Random) -> None:
    """What controllers there are, and what goes wrong with them."""
    settings.controllers = chance.choice((1, 2, 2))
    settings.ladder = chance.random() < 0.6
    settings.wishes = chance.choice((0.0, 0.3, 1.0))
    # Who wants much leaves too little for keys of a class that reserves.
    settings.static = bool(settings.wishes) or chance.random() < 0.25
    severity = chance.choice((0.0, 0.02, 0.1, 0.3))
    settings.gnmi = {kind: severity * chance.random() for kind in GNMI_FAULTS if chance.random() < 0.6}
    rates = (0.05, 0.15, 0.4)
    settings.meddling = {kind: chance.choice(rates) for kind in MEDDLING if chance.random() < 0.4}
    settings.lying_node = chance.random() < 0.25
    settings.statement_thief = chance.choice((0.0, 0.0, 2.0, 20.0))
