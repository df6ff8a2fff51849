"""What one run is like: drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

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
    requests: float = 2.0
    settle: float = 90.0
    """Simulated seconds within which everything agrees once keys flow again."""
    key_lifetime: float = 86_400.0
    guard: float = 600.0
    allowance: int = 100_000
    cn_minimum: int = 4_096
    buffer_minimum: int = 0


def drawn(seed: int) -> Settings:
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
    return settings
