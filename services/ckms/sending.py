"""How a batch that this node's AKMS submitted leaves: over one path, or of class split in shares over several.

Sans-IO: time and randomness are arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from keyhaul.keys.grants import SPLIT
from keyhaul.randomness import Source, fraction
from keyhaul.transport.messages.relay import RelayFailure, Submit
from services.ckms.choice import PathChoice, Ready
from services.ckms.forwarding import ForwardingTable, Path
from services.ckms.shares import divide, name_of

SPREAD = 0.1
"""The time of each share is shortened at random by up to so much of it, so that it is no mark to know the others by."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What leaves over one path."""

    path: Path
    name: str
    bits: bytes = field(repr=False)
    deadline: float


def paths_for(
    request: Submit, table: ForwardingTable, choice: PathChoice, ready: Ready, now: float
) -> tuple[Path, ...] | RelayFailure:
    """Take the paths of a submission: one, or of class split one for each share; or say why there are none.

    Fewer paths than there are shares, or one for another class, never serve class split.
    """
    divided = request.service_class == SPLIT
    to, length = request.destination, len(request.bits)
    paths = table.shares_to(to) if divided else table.paths_to(to, request.service_class)
    if not paths:
        return RelayFailure.NO_PATH
    # Where no link has pads for it now, the batch waits for them at one that is up.
    for wanted in (length, 0):
        if divided:
            chosen = choice.choose_shares(paths, wanted, ready, now)
        else:
            path = choice.choose(paths, wanted, ready, now)
            chosen = None if path is None else (path,)
        if chosen is not None:
            return chosen
    return RelayFailure.UNREACHABLE


def pieces_of(request: Submit, paths: tuple[Path, ...], source: Source, now: float, deadline: float) -> Iterator[Piece]:
    """Yield what leaves over each path; shares are drawn here, and nowhere kept."""
    if request.service_class != SPLIT:
        yield Piece(paths[0], request.batch, request.bits, deadline)
        return
    count = len(paths)
    for number, (path, share) in enumerate(zip(paths, divide(request.bits, count, source), strict=True)):
        until = deadline - SPREAD * fraction(source) * (deadline - now)
        yield Piece(path, name_of(request.batch, number, count), share, until)
