"""How two ends make a session: hello, reply, establish, established (sans-IO).

Each attempt has an ML-KEM-768 (FIPS 203) key and ciphertext of its own; `handshake` signs, verifies and derives.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from keyhaul.link.channel import LANE
from keyhaul.link.handshake import (
    LinkEnd,
    NoCommonSuite,
    NotAuthentic,
    Repeated,
    Secrets,
    SessionRefused,
    derive,
    sign,
    transcript_of,
    verify,
)
from keyhaul.link.protection.registry import choose
from keyhaul.link.reconciliation import MalformedReport, Reconciliation, reconcile
from keyhaul.randomness import Source
from keyhaul.transport.codec import decode, encode
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.messages.link import DirectionReport, Establish, Established, Hello, SignedHello, Wake

INCARNATION_LENGTH = 16
SESSION_ID_LENGTH = 16
NONCE_LENGTH = 16

_KEM_SEED_LENGTH = 64
_REMEMBERED = 256
"""Hellos and wakes that an end remembers, to know a repeated one."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What this end brings into an establishment at this moment."""

    incarnation: bytes
    suites: tuple[str, ...]
    """Best first, floor applied."""
    epoch: int
    outgoing: DirectionReport
    incoming: DirectionReport


@dataclass(frozen=True, slots=True)
class Session:
    """What both ends agreed on."""

    id: bytes
    suite: str
    incarnation: bytes
    """Of this end."""
    peer_incarnation: bytes
    peer_epoch: int
    outgoing: Reconciliation
    incoming: Reconciliation
    outgoing_pad: bytes = field(repr=False)
    """Bootstrap pad of this end's outgoing direction."""
    incoming_pad: bytes = field(repr=False)

    @property
    def own_store_older(self) -> bool:
        """Whether this end's store is older than the other end's record of a direction."""
        return self.outgoing.restored == "sender" or self.incoming.restored == "receiver"


class Initiator:
    """One attempt of the end that establishes: `hello`, then `reply`, then `established`, once each."""

    def __init__(self, end: LinkEnd, proposal: Proposal, source: Source, *, known: Session | None = None) -> None:
        self._end = end
        self._proposal = proposal
        self._known = known
        self._kem = MLKEM768PrivateKey.from_seed_bytes(source(_KEM_SEED_LENGTH))
        self._hello = encode(_hello(end, proposal, kem=self._kem.public_key().public_bytes_raw()))
        self._reply: Hello | None = None
        self._transcript = b""
        self._secrets: Secrets | None = None

    def hello(self) -> SignedHello:
        """The first message."""
        return SignedHello(body=self._hello, signature=sign(self._end, b"hello", self._hello))

    def reply(self, signed: SignedHello) -> Establish:
        """Take the responder's answer; return the third message. Nothing switches yet.

        Raises:
            SessionRefused: the answer is not authentic, not to this hello, or chooses what we do not accept.
        """
        end = self._end
        reply = _verified(end, b"reply", signed)
        if reply.peer_incarnation != self._proposal.incarnation or not hmac.compare_digest(
            reply.answers, hashlib.sha256(self._hello).digest()
        ):
            raise NotAuthentic("the reply answers another hello")
        _check_epoch(reply, self._known)
        if reply.suite != choose(self._proposal.suites, reply.suites):
            raise NoCommonSuite("the reply chooses another suite than the lists of both ends give")
        try:
            secret = self._kem.decapsulate(reply.kem)
        except ValueError as error:
            raise NotAuthentic("the reply's ciphertext is malformed") from error
        self._reply = reply
        self._transcript = transcript_of(self._hello, signed.body)
        self._secrets = derive(secret, end.bootstrap, self._transcript)
        _reconciled(self._proposal.outgoing, reply.incoming), _reconciled(reply.outgoing, self._proposal.incoming)
        return Establish(
            link=end.link, transcript=self._transcript, signature=sign(end, b"establish", self._transcript)
        )

    def established(self, message: Established) -> Session:
        """Take the responder's word that it has switched; return the session.

        Raises:
            NotAuthentic: the word is not from the responder of this session, or bootstrap secrets differ.
        """
        reply, secrets = self._reply, self._secrets
        assert reply is not None
        assert secrets is not None
        if not hmac.compare_digest(message.proof, secrets.proof):
            raise NotAuthentic("the proof is wrong: the bootstrap secrets differ, or the message was made up")
        return Session(
            id=self._transcript[:SESSION_ID_LENGTH],
            suite=reply.suite,
            incarnation=self._proposal.incarnation,
            peer_incarnation=reply.incarnation,
            peer_epoch=reply.epoch,
            outgoing=_reconciled(self._proposal.outgoing, reply.incoming),
            incoming=_reconciled(reply.outgoing, self._proposal.incoming),
            outgoing_pad=secrets.from_initiator,
            incoming_pad=secrets.from_responder,
        )


class Responder:
    """One attempt of the other end: made from a hello, it holds until its `establish` comes."""

    def __init__(self, end: LinkEnd, proposal: Proposal, hello: Hello, signed: SignedHello, suite: str) -> None:
        try:
            secret, ciphertext = MLKEM768PublicKey.from_public_bytes(hello.kem).encapsulate()
        except ValueError as error:
            raise NotAuthentic("the hello's encapsulation key is malformed") from error
        body = encode(
            _hello(
                end,
                proposal,
                kem=ciphertext,
                suite=suite,
                peer_incarnation=hello.incarnation,
                answers=hashlib.sha256(signed.body).digest(),
            )
        )
        self._end = end
        self._answer = SignedHello(body=body, signature=sign(end, b"reply", body))
        self._transcript = transcript_of(signed.body, body)
        secrets = derive(secret, end.bootstrap, self._transcript)
        self._proof = secrets.proof
        self._session = Session(
            id=self._transcript[:SESSION_ID_LENGTH],
            suite=suite,
            incarnation=proposal.incarnation,
            peer_incarnation=hello.incarnation,
            peer_epoch=hello.epoch,
            outgoing=_reconciled(proposal.outgoing, hello.incoming),
            incoming=_reconciled(hello.outgoing, proposal.incoming),
            outgoing_pad=secrets.from_responder,
            incoming_pad=secrets.from_initiator,
        )

    def answer(self) -> SignedHello:
        """The second message."""
        return self._answer

    def establish(self, message: Establish) -> tuple[Session, Established]:
        """Take the third message; return the session to switch to, and the word that says so once that is durable.

        Raises:
            NotAuthentic: it is not the initiator's proof for this very reply.
        """
        if not hmac.compare_digest(message.transcript, self._transcript):
            raise NotAuthentic("the message establishes another session than the one replied to")
        verify(self._end, b"establish", message.transcript, message.signature)
        return self._session, Established(proof=self._proof)


class Acquaintance:
    """What an end remembers of hellos and wakes, so that a repeated one is refused."""

    def __init__(self, end: LinkEnd) -> None:
        self._end = end
        self._seen: deque[bytes] = deque(maxlen=_REMEMBERED)

    def hello(self, signed: SignedHello, known: Session | None, suites: tuple[str, ...]) -> tuple[Hello, str]:
        """Verify a hello and choose the suite: the initiator's first that this end accepts.

        Args:
            signed: as received.
            known: the present session, whose epoch and incarnation bound the hello's.
            suites: what this end accepts.

        Raises:
            SessionRefused: it is not authentic, was received before, is older than the present session's
                lists, or leaves no common suite.
        """
        hello = _verified(self._end, b"hello", signed)
        if hello.peer_incarnation or hello.answers or hello.suite:
            raise NotAuthentic("the hello has the fields of a reply")
        self._once(hashlib.sha256(signed.body).digest())
        _check_epoch(hello, known)
        suite = choose(hello.suites, suites)
        if suite is None:
            raise NoCommonSuite("no suite of the hello is accepted here")
        return hello, suite

    def wake(self, message: Wake) -> None:
        """Verify a wake.

        Raises:
            SessionRefused: it is not authentic or was received before.
        """
        if message.link != self._end.link or len(message.nonce) != NONCE_LENGTH:
            raise NotAuthentic("the wake is for another link")
        verify(self._end, b"wake", _wake_input(message.link, message.nonce), message.signature)
        self._once(message.nonce)

    def _once(self, mark: bytes) -> None:
        if mark in self._seen:
            raise Repeated("the message was received before")
        self._seen.append(mark)


def is_of(message: Establish, session: Session) -> bool:
    """Whether a third message is a repetition of the one that made a session."""
    return hmac.compare_digest(message.transcript[:SESSION_ID_LENGTH], session.id)


def wake(end: LinkEnd, source: Source) -> Wake:
    """The responder's request for a session."""
    nonce = source(NONCE_LENGTH)
    return Wake(link=end.link, nonce=nonce, signature=sign(end, b"wake", _wake_input(end.link, nonce)))


def _hello(end: LinkEnd, proposal: Proposal, **fields: bytes | str) -> Hello:
    make: Callable[..., Hello] = Hello
    return make(
        link=end.link,
        sender=end.own,
        incarnation=proposal.incarnation,
        lane=LANE,
        suites=list(proposal.suites),
        epoch=proposal.epoch,
        outgoing=proposal.outgoing,
        incoming=proposal.incoming,
        **fields,
    )


def _verified(end: LinkEnd, role: bytes, signed: SignedHello) -> Hello:
    verify(end, role, signed.body, signed.signature)
    try:
        hello = decode(signed.body, Hello)
    except ServiceError as error:
        raise SessionRefused(f"the hello cannot be read ({error.code}): {error}") from error
    if hello.link != end.link or hello.sender != end.peer or hello.lane != LANE:
        raise NotAuthentic("the hello is for another link, or by another end")
    if len(hello.incarnation) != INCARNATION_LENGTH:
        raise NotAuthentic("the incarnation has the wrong length")
    return hello


def _check_epoch(hello: Hello, known: Session | None) -> None:
    if known is not None and hello.incarnation == known.peer_incarnation and hello.epoch < known.peer_epoch:
        raise NotAuthentic("the suite list is older than the one in use")


def _reconciled(sender: DirectionReport, receiver: DirectionReport) -> Reconciliation:
    try:
        return reconcile(sender, receiver)
    except MalformedReport as error:
        raise SessionRefused(f"a report contradicts itself: {error}") from error


def _wake_input(link: str, nonce: bytes) -> bytes:
    return nonce + link.encode()
