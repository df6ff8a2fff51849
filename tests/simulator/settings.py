"""What one run is like: drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

MESSAGE_FAULTS = ("lost", "doubled", "reordered", "delayed", "corrupted", "reset")


@dataclass
class Settings:
    """Rates are events a second unless said otherwise."""

    seconds: float = 20.0
    """Simulated seconds with faults."""
    messages: dict[str, float] = field(default_factory=dict)
    """Probability of each fault, a message."""
    crash: float = 0.0
    crash_at_commit: float = 0.0
    """Probability, a commit, before it and after it."""
    disk_failure: float = 0.0
    """Probability, a commit."""
    put_back: float = 0.0
    lose: float = 0.0
    partition: float = 0.0
    clock: float = 0.0
    modules: float = 0.0
    replay: float = 0.0
    compromised_carrier: float = 0.0
    """Probability that the CKMS in the middle does harm to a batch."""
    liar: bool = False
    thief: bool = False
    squat: bool = False
    """Whether the thief voids batches whose names it cannot know, before their keys come."""
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
    severity = chance.choice((0.01, 0.05, 0.15))
    settings.messages = {kind: severity * chance.random() for kind in MESSAGE_FAULTS if chance.random() < 0.6}
    if chance.random() < 0.6:
        settings.crash = chance.choice((0.1, 0.6))
        settings.crash_at_commit = chance.choice((0.0, 0.005, 0.02))
    if chance.random() < 0.2:
        settings.disk_failure = 0.01
    if chance.random() < 0.25:
        settings.put_back = 0.15
    if chance.random() < 0.2:
        settings.lose = 0.1
    if chance.random() < 0.4:
        settings.partition = 0.3
    if chance.random() < 0.4:
        settings.clock = 0.5
    if chance.random() < 0.5:
        settings.modules = 2.0
    if chance.random() < 0.4:
        settings.replay = 20.0
    if chance.random() < 0.35:
        settings.compromised_carrier = 0.3
    settings.liar = chance.random() < 0.3
    settings.thief = chance.random() < 0.3
    settings.requests = chance.choice((1.0, 3.0))
    if chance.random() < 0.25:
        settings.key_lifetime, settings.guard = 30.0, 6.0
    settings.allowance = chance.choice((100_000, 100_000, 40))
    settings.cn_minimum = chance.choice((0, 4_096))
    settings.buffer_minimum = chance.choice((0, 0, 8))
    return settings
