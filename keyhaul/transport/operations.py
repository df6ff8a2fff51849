"""The one table of who may call what on whom.

Each operation is a POST to ``/v1/NAME``. The listener looks the caller's verified role up here before a
handler sees anything; there is no other place that decides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from keyhaul.identity.names import Role
from keyhaul.transport.messages import aaa, access, foresight, link, measured, network, path, peer, relay
from keyhaul.transport.messages.base import Accepted, Message

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)

Pair = tuple[Role, Role]

UP: Pair = (Role.UKMS, Role.AKMS)
DOWN: Pair = (Role.AKMS, Role.UKMS)
HOP: Pair = (Role.CKMS, Role.CKMS)
INTO_CARRIER: Pair = (Role.AKMS, Role.CKMS)
OUT_OF_CARRIER: Pair = (Role.CKMS, Role.AKMS)
BETWEEN_ACCESS: Pair = (Role.AKMS, Role.AKMS)
TO_AAA: Pair = (Role.AKMS, Role.AAA)
TO_CONTROLLER: Pair = (Role.CKMS, Role.CONTROLLER)
STEERS: frozenset[Pair] = frozenset({(Role.OPERATOR, Role.CONTROLLER)})
LOOKS: frozenset[Pair] = STEERS | {(Role.VIEWER, Role.CONTROLLER), (Role.MANAGER, Role.CONTROLLER)}

REVERSED = frozenset({DOWN})
"""(caller's role, server's role) where the server dials and the calls travel on that connection."""

ENDS_OF_A_LINK = frozenset({UP, DOWN, HOP})


@dataclass(frozen=True, slots=True)
class Operation(Generic[Request, Reply]):
    """One operation: its name, who may call it on whom, and its typed request and reply."""

    name: str
    pairs: frozenset[Pair]
    """(caller's role, server's role)"""
    request: type[Request]
    reply: type[Reply]
    sealed: bool = False
    """Whether it travels sealed under link keys (the HTTP body is then `link.Sealed` both ways)."""
    one_way: bool = False
    """Sealed only: the HTTP answer is empty and decides nothing."""

    @property
    def path(self) -> str:
        """The HTTP path."""
        return f"/v1/{self.name}"


LINK_HELLO = Operation("link.hello", ENDS_OF_A_LINK, link.SignedHello, link.SignedHello)
LINK_ESTABLISH = Operation("link.establish", ENDS_OF_A_LINK, link.Establish, link.Established)
LINK_WAKE = Operation("link.wake", ENDS_OF_A_LINK, link.Wake, Accepted)
LINK_CONTROL = Operation("link.control", ENDS_OF_A_LINK, link.LinkControl, link.LinkControlReply, sealed=True)

RELAY_FORWARD = Operation("relay.forward", frozenset({HOP}), relay.Forward, Accepted, sealed=True, one_way=True)
RELAY_ACKNOWLEDGE = Operation(
    "relay.acknowledge", frozenset({HOP}), relay.Acknowledge, Accepted, sealed=True, one_way=True
)
CARRIER_SUBMIT = Operation("carrier.submit", frozenset({INTO_CARRIER}), relay.Submit, Accepted)
CARRIER_EXPECT = Operation("carrier.expect", frozenset({INTO_CARRIER}), relay.Expect, Accepted)
CARRIER_OUTCOME = Operation("carrier.outcome", frozenset({OUT_OF_CARRIER}), relay.Outcome, Accepted)
CARRIER_DELIVER = Operation("carrier.deliver", frozenset({OUT_OF_CARRIER}), relay.Deliver, Accepted)
CARRIER_EXPOSED = Operation("carrier.exposed", frozenset({OUT_OF_CARRIER}), relay.Exposed, Accepted)

PATH_REQUEST = Operation("path.request", frozenset({TO_CONTROLLER}), path.PathRequest, path.PathReply)
PATH_EXPOSURES = Operation("path.exposures", frozenset({TO_CONTROLLER}), path.AskExposures, path.Exposures)

NETWORK_STATUS = Operation("network.status", LOOKS, network.Ask, network.Status)
NETWORK_NODES = Operation("network.nodes", LOOKS, network.Page, network.Nodes)
NETWORK_LINKS = Operation("network.links", LOOKS, network.Page, network.Links)
NETWORK_DISAGREEMENTS = Operation("network.disagreements", LOOKS, network.Page, network.Disagreements)
NETWORK_DEMANDS = Operation("network.demands", LOOKS, network.Page, network.Demands)
NETWORK_RESERVATIONS = Operation("network.reservations", LOOKS, network.Page, network.Reservations)
NETWORK_EVENTS = Operation("network.events", LOOKS, network.AskEvents, network.Events)
NETWORK_HISTORY = Operation("network.history", LOOKS, measured.AskHistory, measured.History)
NETWORK_EXPLAIN = Operation("network.explain", LOOKS, foresight.Explain, foresight.Explained)
NETWORK_WHATIF = Operation("network.whatif", LOOKS, foresight.WhatIf, foresight.Impact)
NETWORK_DRYRUN = Operation("network.dryrun", LOOKS, foresight.DryRun, foresight.Rehearsed)
NETWORK_QUARANTINE = Operation("network.quarantine", STEERS, network.Quarantine, network.Quarantined)
NETWORK_RELEASE = Operation("network.release", STEERS, network.Release, network.Released)

PEER_REQUEST = Operation("peer.request", frozenset({BETWEEN_ACCESS}), peer.KeyRequest, Accepted)
PEER_ANNOUNCE = Operation("peer.announce", frozenset({BETWEEN_ACCESS}), peer.Announce, Accepted)
PEER_CONFIRM = Operation("peer.confirm", frozenset({BETWEEN_ACCESS}), peer.Confirm, peer.Confirmed)
PEER_TRANSFER = Operation("peer.transfer", frozenset({BETWEEN_ACCESS}), peer.Transfer, peer.Released)
PEER_FAILED = Operation("peer.failed", frozenset({BETWEEN_ACCESS}), peer.RequestFailed, Accepted)
PEER_VOID = Operation("peer.void", frozenset({BETWEEN_ACCESS}), peer.VoidKeys, peer.Voided)
PEER_WITHDRAW = Operation("peer.withdraw", frozenset({BETWEEN_ACCESS}), peer.Withdraw, Accepted)
PEER_QUERY = Operation("peer.query", frozenset({BETWEEN_ACCESS}), peer.Query, peer.QueryReply)
PEER_SHARED = Operation("peer.shared", frozenset({BETWEEN_ACCESS}), peer.Shared, peer.SharedBatches)
PEER_RECORDS = Operation("peer.records", frozenset({BETWEEN_ACCESS}), peer.Records, peer.RecordsReply)

ACCESS_REQUEST = Operation("access.request", frozenset({UP}), access.RequestKeys, Accepted, sealed=True)
ACCESS_DESCRIBE = Operation("access.describe", frozenset({UP}), access.Describe, access.Description, sealed=True)
ACCESS_WITHDRAW = Operation("access.withdraw", frozenset({UP}), peer.Withdraw, Accepted, sealed=True)
ACCESS_REPORT = Operation("access.report", frozenset({UP}), access.Report, access.Reported, sealed=True)
DELIVERY_PUSH = Operation("delivery.push", frozenset({DOWN}), access.Push, access.Held, sealed=True)
DELIVERY_FAILED = Operation("delivery.failed", frozenset({DOWN}), access.DeliveryFailed, Accepted, sealed=True)
DELIVERY_VOID = Operation("delivery.void", frozenset({DOWN}), peer.VoidKeys, peer.Voided, sealed=True)
DELIVERY_QUERY = Operation("delivery.query", frozenset({DOWN}), peer.Query, access.States, sealed=True)
DELIVERY_SETTLE = Operation("delivery.settle", frozenset({DOWN}), access.Settle, Accepted, sealed=True)
DELIVERY_REVOKE = Operation("delivery.revoke", frozenset({DOWN}), access.Revoke, access.Revoked, sealed=True)

AAA_AUTHORISE = Operation("aaa.authorise", frozenset({TO_AAA}), aaa.Authorise, aaa.SignedGrant)
AAA_USAGE = Operation("aaa.usage", frozenset({TO_AAA}), aaa.Usage, aaa.Recorded)
AAA_CHANGES = Operation("aaa.changes", frozenset({TO_AAA}), aaa.Changes, aaa.ChangesReply)

OPERATIONS: dict[str, Operation[Message, Message]] = {
    value.name: value for value in list(globals().values()) if isinstance(value, Operation)
}
"""Every operation by name."""


def permitted(operation: Operation[Request, Reply], caller: Role, server: Role) -> bool:
    """Whether the table lets a caller of that role call the operation on a server of that role."""
    return (caller, server) in operation.pairs
