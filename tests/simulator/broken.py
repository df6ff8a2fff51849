"""Deliberately broken variants of the services, each against one rule: the oracle must catch every one of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305
from sqlalchemy import select, update

from keyhaul.link import reconciliation
from keyhaul.link.channel import Channel
from keyhaul.link.protection import aes_gcm, otp
from keyhaul.link.receiver import ReceiverDirection
from keyhaul.link.sender import SenderDirection
from keyhaul.link.window import ReplayWindow
from keyhaul.transport.messages.aaa import Grant, SignedGrant, UsageChange
from keyhaul.transport.messages.peer import BatchState
from services.akms import accounting, cn_pool, combination, exposures, making, releasing, tracing
from services.akms.arrivals import Arrivals
from services.akms.carrier import Carrier
from services.akms.changes import uncount
from services.akms.errands import ErrandKind, Errands
from services.akms.holding import Holding
from services.akms.reconciling import Reconciling
from services.akms.resolving import Resolving
from services.ckms.effects import SendForward
from services.ckms.relay import Relay
from services.ukms import copies, opening
from services.ukms.leases import Leased
from services.ukms.opening import Opening
from services.ukms.tables import copies as copies_table
from services.ukms.vault import Vault
from tests.simulator.settings import Settings


@dataclass(frozen=True)
class Variant:
    """A broken service, the circumstances in which it shows, and the rules by which it may be caught."""

    name: str
    broken: Callable[[], AbstractContextManager[None]]
    settings: Callable[[], Settings]
    rules: frozenset[str]


@contextmanager
def burn_after_use() -> Iterator[None]:
    """A sender that goes on from the first byte of what is stored, instead of from what may have been used."""
    honest = SenderDirection.__init__

    def begin(self: SenderDirection, *arguments: Any, **options: Any) -> None:
        honest(self, *arguments, **options)
        for pads in self.streams.values():
            pads.position = 0

    with patch.object(SenderDirection, "__init__", begin):
        yield


@contextmanager
def older_store_unnoticed() -> Iterator[None]:
    """Ends that keep common blocks even if one of their stores is older than what the other saw."""

    def floor(report: Any, stream: Any) -> int:
        return 0

    with (
        patch.object(reconciliation, "_older", lambda sender, receiver: ""),
        patch.object(reconciliation, "floor", floor),
        burn_after_use(),
    ):
        yield


@contextmanager
def mac_not_checked() -> Iterator[None]:
    """Receivers that decrypt and do not verify."""

    class Unverified:
        generate_tag = staticmethod(Poly1305.generate_tag)

        @staticmethod
        def verify_tag(key: bytes, data: bytes, tag: bytes) -> None:
            return None

    honest: Any = vars(aes_gcm)["AESGCM"]

    class Decrypting:
        def __init__(self, key: bytes) -> None:
            self._key = bytes(key)
            self.encrypt = honest(key).encrypt

        def decrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
            counter = modes.CTR(nonce + (2).to_bytes(4))
            return Cipher(algorithms.AES(self._key), counter).decryptor().update(data[:-16])

    with patch.object(otp, "Poly1305", Unverified), patch.object(aes_gcm, "AESGCM", Decrypting):
        yield


@contextmanager
def replay_accepted() -> Iterator[None]:
    """Receivers that keep no record of what they accepted."""
    with patch.object(ReplayWindow, "check", lambda self, sequence: None):
        yield


@contextmanager
def nonce_reused() -> Iterator[None]:
    """Senders whose sequence starts anew after some messages."""
    honest = Channel.header

    def header(self: Channel, *arguments: Any, **options: Any) -> tuple[int, bytes]:
        self.sequence %= 6
        return honest(self, *arguments, **options)

    with patch.object(Channel, "header", header), replay_accepted():
        yield


@contextmanager
def released_before_held() -> Iterator[None]:
    """A maker that does not wait until the slaves' sites hold a batch."""
    honest = Holding.hold

    async def hold(self: Holding, batch: Any, bits: bytes, ukmss: Any, deadline: float) -> dict[str, str]:
        async def later() -> None:
            await asyncio.sleep(0.3)
            await honest(self, batch, bits, ukmss, deadline)

        running = asyncio.get_running_loop().create_task(later())
        running.add_done_callback(lambda task: task.cancelled() or task.exception())
        return {}

    with patch.object(Holding, "hold", hold):
        yield


@contextmanager
def reconciliation_skipped() -> Iterator[None]:
    """AKMSs that neither ask what became of a transfer nor void what cannot be used."""
    honest = Errands.__dict__["serve"]

    def serve(self: Errands, kind: ErrandKind, work: Any) -> None:
        async def nothing(errand: Any) -> None:
            return None

        skipped = kind in (ErrandKind.RESOLVE, ErrandKind.VOID_COPIES, ErrandKind.RECALL)
        honest(self, kind, nothing if skipped else work)

    async def compare(self: Reconciling, ukms: str, unsettled: list[str]) -> None:
        return None

    with patch.object(Errands, "serve", serve), patch.object(Reconciling, "_compare", compare):
        yield


@contextmanager
def grant_not_verified() -> Iterator[None]:
    """A maker that reads a grant without looking at AAA's signature."""

    def verify(signed: bytes, key: Any) -> Grant:
        return msgspec.json.decode(msgspec.json.decode(signed, type=SignedGrant).grant, type=Grant)

    with patch.object(making, "verify", verify):
        yield


@contextmanager
def grant_of_another() -> Iterator[None]:
    """A maker to which every genuine grant is good, whoever shows it."""
    with patch.object(making, "check_request", lambda *arguments: None):
        yield


@contextmanager
def allowance_not_counted() -> Iterator[None]:
    """A maker that does not count what it made under a grant."""
    with patch.object(making, "count", lambda *arguments: None):
        yield


@contextmanager
def asker_believed() -> Iterator[None]:
    """A maker that counts as unused what an asker says it never released, though the asker was given the keys."""
    honest: Any = Resolving.__dict__["_drop_copies"]

    def drop(self: Resolving, connection: Any, batch: Any, reply: Any) -> Any:
        if not reply.issued:
            uncount(connection, batch.grant, len(batch.key_ids))
        return honest(self, connection, batch, reply)

    with patch.object(Resolving, "_drop_copies", drop):
        yield


@contextmanager
def unknown_taken_as_void() -> Iterator[None]:
    """An AKMS that has a batch of which it has no record voided, whatever those say who may have released it."""
    with patch.object(tracing, "_joined", lambda own, said: BatchState.VOID):
        yield


@contextmanager
def label_kept() -> Iterator[None]:
    """A carrier KMS that sends a batch on under the label with which it came."""
    honest = Relay.forward

    def forward(self: Relay, previous: str, request: Any, bits: bytes, now: float, *ready: Any) -> list[Any]:
        return [
            dataclasses.replace(effect, message=msgspec.structs.replace(effect.message, label=request.label))
            if isinstance(effect, SendForward)
            else effect
            for effect in honest(self, previous, request, bits, now, *ready)
        ]

    with patch.object(Relay, "forward", forward):
        yield


@contextmanager
def usage_recorded_twice() -> Iterator[None]:
    """An asker that writes two usage records for a batch, under two names."""
    honest: Any = vars(releasing)["note_release"]

    def note(connection: Any, batch: Any, now: float) -> None:
        honest(connection, batch, now)
        honest(connection, dataclasses.replace(batch, id=batch.id[::-1]), now)

    with patch.object(releasing, "note_release", note):
        yield


@contextmanager
def usage_not_recorded() -> Iterator[None]:
    """An asker that releases without a usage record."""
    with patch.object(releasing, "note_release", lambda *arguments: None):
        yield


@contextmanager
def foreign_word_believed() -> Iterator[None]:
    """An AKMS that passes on what a UKMS says of keys without saying which one it was."""
    honest = UsageChange

    with patch.object(accounting, "UsageChange", lambda batch, change, key_ids, ukms: honest(batch, change, key_ids)):
        yield


@contextmanager
def confirmation_unchecked() -> Iterator[None]:
    """AKMSs that believe whatever CN bits arrived, and whatever came out of them."""

    class Believing:
        compare_digest = staticmethod(lambda one, other: True)

    with patch.object(cn_pool, "hmac", Believing), patch.object(combination, "hmac", Believing):
        yield


@contextmanager
def slave_served_twice() -> Iterator[None]:
    """A UKMS that leaves a slave's copy where it was."""
    honest = copies.fetch

    def fetch(connection: Any, caller: Any, master: Any, key_ids: Any, now: float) -> Any:
        columns = (copies_table.c.state, copies_table.c.bits, copies_table.c.until)
        places = [
            (copies_table.c.key_id == key_id.bytes, copies_table.c.side == "slave", copies_table.c.holder == caller)
            for key_id in key_ids
        ]
        before = [connection.execute(select(*columns).where(*place)).mappings().first() for place in places]
        found = honest(connection, caller, master, key_ids, now)
        for place, row in zip(places, before, strict=True):
            connection.execute(update(copies_table).where(*place).values(**row))
        return found

    with patch.object(copies, "fetch", fetch):
        yield


@contextmanager
def modules_not_compared() -> Iterator[None]:
    """Ends of a link that do not make sure that their modules gave them the same bits."""
    sender, receiver = SenderDirection.offered_bits, ReceiverDirection.confirm

    def offered(self: SenderDirection, message: Any, missing: Any) -> bytes:
        sender(self, message, missing)
        return b""

    def confirm(self: ReceiverDirection, *arguments: Any) -> Any:
        return dataclasses.replace(receiver(self, *arguments), bits=b"")

    with patch.object(SenderDirection, "offered_bits", offered), patch.object(ReceiverDirection, "confirm", confirm):
        yield


@contextmanager
def gate_skipped() -> Iterator[None]:
    """A UKMS that hands keys out after a start whether or not its store is the latest."""

    async def nothing(self: Opening) -> None:
        return None

    with (
        patch.object(opening, "is_older", lambda *arguments: False),
        patch.object(Opening, "found_older", nothing),
    ):
        yield


@contextmanager
def lease_not_recorded() -> Iterator[None]:
    """A UKMS that sets keys aside in memory alone: its next life sets them aside again."""
    honest = Vault.set_aside

    class Undone(Exception):
        """Carries what was found out of a transaction that leaves no trace."""

    async def issue(self: Vault, master: Any, chosen: Any) -> Any:
        return self.opened(master, await honest(self, master, chosen))

    async def set_aside(self: Vault, master: Any, chosen: Any) -> list[Leased]:
        now = self._clock()

        def look(connection: Any) -> None:
            raise Undone(copies.issue(connection, master, chosen, now))

        try:
            await self._store.write(look)
        except Undone as undone:
            found = undone.args[0]
        return [Leased(stored, found[stored.key_id]) for stored in chosen]

    with patch.object(Vault, "issue", issue), patch.object(Vault, "set_aside", set_aside):
        yield


@contextmanager
def answered_before_safe() -> Iterator[None]:
    """Honest services on disks that call data safe which a power cut takes away."""
    yield


@contextmanager
def exposed_and_kept() -> Iterator[None]:
    """An AKMS that burns exposed CN bits, and keeps the keys that were made under them."""
    with patch.object(exposures, "flag", lambda connection, names: ([], 0)):
        yield


@contextmanager
def exposed_and_used() -> Iterator[None]:
    """AKMSs that call back keys, and go on with the CN bits that they have."""
    for_all = patch.object(Carrier, "expose", lambda *_: 0), patch.object(Arrivals, "expose", lambda *_: 0)
    with for_all[0], for_all[1]:
        yield


def _calm(**options: Any) -> Callable[[], Settings]:
    return lambda: Settings(**{"seconds": 8.0, "requests": 3.0, "settle": 12.0, **options})


_suspected = _calm(seconds=12.0, controllers=1, static=False, requests=4.0, meddling={"node in quarantine": 0.5})

lost_while_unsettled = _calm(lost_alone=5.0, harmed="akms-5", requests=6.0, seconds=12.0)
"""The AKMS of the slaves loses its store while its UKMS holds batches that are released, and not settled."""

VARIANTS = [
    Variant("burn after use", burn_after_use, _calm(crash=1.5, seconds=12.0), frozenset({"once"})),
    Variant(
        "older store unnoticed",
        older_store_unnoticed,
        _calm(put_back=1.0, seconds=12.0),
        frozenset({"once", "whole"}),
    ),
    Variant("exposed and kept", exposed_and_kept, _suspected, frozenset({"exposed"})),
    Variant("exposed and used", exposed_and_used, _suspected, frozenset({"exposed"})),
    Variant("MAC not checked", mac_not_checked, _calm(messages={"corrupted": 0.1}), frozenset({"authentic"})),
    Variant("replay accepted", replay_accepted, _calm(replay=30.0), frozenset({"authentic"})),
    Variant("nonce reused", nonce_reused, _calm(), frozenset({"once"})),
    Variant("released before held", released_before_held, _calm(), frozenset({"held"})),
    Variant(
        "reconciliation skipped",
        reconciliation_skipped,
        _calm(crash_at_commit=0.01, messages={"lost": 0.05}, seconds=8.0, requests=6.0),
        frozenset({"whole", "there"}),
    ),
    Variant("grant not verified", grant_not_verified, _calm(thief=True), frozenset({"granted"})),
    Variant("grant of another", grant_of_another, _calm(thief=True), frozenset({"granted"})),
    Variant("allowance not counted", allowance_not_counted, _calm(thief=True, allowance=12), frozenset({"granted"})),
    Variant("asker believed", asker_believed, _calm(thief=True, allowance=12, seconds=15.0), frozenset({"granted"})),
    Variant(
        "unknown taken as void",
        unknown_taken_as_void,
        lost_while_unsettled,
        frozenset({"there", "held"}),
    ),
    Variant("label kept", label_kept, _calm(), frozenset({"blind"})),
    Variant("usage recorded twice", usage_recorded_twice, _calm(seconds=4.0), frozenset({"counted"})),
    Variant("usage not recorded", usage_not_recorded, _calm(seconds=4.0), frozenset({"counted"})),
    Variant(
        "foreign word believed",
        foreign_word_believed,
        _calm(liar=True, key_lifetime=12.0, guard=2.0, seconds=40.0),
        frozenset({"counted"}),
    ),
    Variant(
        "confirmation unchecked",
        confirmation_unchecked,
        _calm(compromised_carrier=0.7, seconds=12.0),
        frozenset({"same"}),
    ),
    Variant("slave served twice", slave_served_twice, _calm(), frozenset({"one-delivery"})),
    Variant("modules not compared", modules_not_compared, _calm(modules=5.0), frozenset({"whole"})),
    Variant(
        "gate skipped",
        gate_skipped,
        _calm(put_back=1.0, harmed="ukms-1", pairs=4, requests=8.0, seconds=15.0, buffer_minimum=8),
        frozenset({"one-delivery"}),
    ),
    Variant(
        "lease not recorded",
        lease_not_recorded,
        _calm(crash=2.0, pairs=2, requests=12.0, buffer_minimum=48, seconds=15.0),
        frozenset({"one-delivery"}),
    ),
    Variant(
        "answered before safe",
        answered_before_safe,
        _calm(lazy_disks=True, crash=1.5, seconds=12.0),
        frozenset({"once", "whole", "one-delivery", "there", "held", "same", "counted"}),
    ),
]
