from __future__ import annotations

import os
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from keyhaul.link.handshake import LinkEnd, NoCommonSuite, NotAuthentic, Repeated, SessionRefused
from keyhaul.link.session import Acquaintance, Initiator, Proposal, Responder, Session, is_of, wake
from keyhaul.transport.messages.link import DirectionReport, Establish, Established, SignedHello

ONE = MLDSA65PrivateKey.from_seed_bytes(b"1" * 32)
TWO = MLDSA65PrivateKey.from_seed_bytes(b"2" * 32)
A = LinkEnd("8-9", "ckms-8", "ckms-9", ONE, TWO.public_key(), b"the bootstrap secret of the link")
B = LinkEnd("8-9", "ckms-9", "ckms-8", TWO, ONE.public_key(), b"the bootstrap secret of the link")
EMPTY = DirectionReport(0, 0, 0)


def proposal(*suites: str, epoch: int = 0, outgoing: DirectionReport = EMPTY) -> Proposal:
    return Proposal(os.urandom(16), suites or ("otp", "aes-256-gcm"), epoch, outgoing, EMPTY)


def answer(
    signed: SignedHello, end: LinkEnd = B, own: Proposal | None = None, known: Session | None = None
) -> Responder:
    own = own or proposal()
    hello, suite = Acquaintance(end).hello(signed, known, own.suites)
    return Responder(end, own, hello, signed, suite)


def establish(a: LinkEnd = A, b: LinkEnd = B) -> tuple[Session, Session]:
    attempt = Initiator(a, proposal(), os.urandom)
    responder = answer(attempt.hello(), b)
    theirs, established = responder.establish(attempt.reply(responder.answer()))
    return attempt.established(established), theirs


def resigned(signed: SignedHello, key: MLDSA65PrivateKey, role: bytes, **changes: object) -> SignedHello:
    body = msgspec.json.encode({**msgspec.json.decode(signed.body), **changes})
    return SignedHello(body=body, signature=key.sign(b"keyhaul link v1\0" + role + b"\0" + body))


def test_both_ends_agree_on_everything() -> None:
    ours, theirs = establish()
    assert ours.id == theirs.id
    assert ours.suite == theirs.suite == "otp"
    assert (ours.incarnation, ours.peer_incarnation) == (theirs.peer_incarnation, theirs.incarnation)
    assert (ours.outgoing_pad, ours.incoming_pad) == (theirs.incoming_pad, theirs.outgoing_pad)
    assert ours.outgoing_pad != ours.incoming_pad
    assert len(ours.outgoing_pad) == 1024
    assert (ours.outgoing, ours.incoming) == (theirs.incoming, theirs.outgoing)


def test_every_session_has_its_own_secrets() -> None:
    assert establish()[0].outgoing_pad != establish()[0].outgoing_pad


def test_no_secret_shows_in_text() -> None:
    session = establish()[0]
    assert session.outgoing_pad.hex() not in repr(session)
    assert repr(session.outgoing_pad) not in repr(session)
    assert "bootstrap" not in repr(A)


def test_different_bootstrap_secrets_do_not_get_past_the_proof() -> None:
    with pytest.raises(NotAuthentic, match="bootstrap"):
        establish(b=replace(B, bootstrap=b"another"))


def test_a_made_up_established_is_refused() -> None:
    attempt = Initiator(A, proposal(), os.urandom)
    attempt.reply(answer(attempt.hello()).answer())
    for proof in (b"", bytes(32)):
        with pytest.raises(NotAuthentic):
            attempt.established(Established(proof=proof))


@pytest.mark.parametrize("changes", [{"link": "8-7"}, {"sender": "ckms-7"}, {"lane": 1}, {"incarnation": ""}])
def test_a_hello_for_another_link_is_refused(changes: dict[str, object]) -> None:
    signed = Initiator(A, proposal(), os.urandom).hello()
    with pytest.raises(NotAuthentic):
        answer(resigned(signed, ONE, b"hello", **changes))


def test_a_hello_that_insists_on_what_is_unknown_is_refused() -> None:
    signed = Initiator(A, proposal(), os.urandom).hello()
    with pytest.raises(SessionRefused, match="version"):
        answer(resigned(signed, ONE, b"hello", critical=["novelty"], novelty=1))
    answer(resigned(signed, ONE, b"hello", novelty=1))


def test_a_hello_signed_by_another_key_or_in_another_role_is_refused() -> None:
    signed = Initiator(A, proposal(), os.urandom).hello()
    for key, role in ((TWO, b"hello"), (ONE, b"reply"), (ONE, b"establish")):
        with pytest.raises(NotAuthentic, match="signature"):
            answer(resigned(signed, key, role))
    with pytest.raises(NotAuthentic, match="signature"):
        answer(SignedHello(body=signed.body + b" ", signature=signed.signature))


def test_a_repeated_hello_is_refused() -> None:
    signed = Initiator(A, proposal(), os.urandom).hello()
    acquaintance = Acquaintance(B)
    acquaintance.hello(signed, None, ("otp",))
    with pytest.raises(Repeated):
        acquaintance.hello(signed, None, ("otp",))


def test_a_reply_to_another_hello_is_refused() -> None:
    own = proposal()
    first, second = Initiator(A, own, os.urandom), Initiator(A, own, os.urandom)
    reply = answer(first.hello()).answer()
    with pytest.raises(NotAuthentic, match="another hello"):
        second.reply(reply)


def test_an_own_hello_sent_back_is_refused() -> None:
    attempt = Initiator(A, proposal(), os.urandom)
    with pytest.raises(NotAuthentic):
        attempt.reply(attempt.hello())


def test_an_establish_for_another_reply_is_refused() -> None:
    attempt = Initiator(A, proposal(), os.urandom)
    first = answer(attempt.hello())
    second = answer(attempt.hello())
    third = attempt.reply(first.answer())
    with pytest.raises(NotAuthentic):
        second.establish(third)
    with pytest.raises(NotAuthentic):
        first.establish(Establish(link="8-9", transcript=third.transcript, signature=third.signature[::-1]))
    session, _ = first.establish(third)
    assert is_of(third, session)
    assert not is_of(replace_transcript(third), session)


def replace_transcript(third: Establish) -> Establish:
    return msgspec.structs.replace(third, transcript=bytes(32))


def test_the_initiators_first_suite_that_both_accept_is_chosen() -> None:
    attempt = Initiator(A, proposal("aes-256-gcm", "otp"), os.urandom)
    reply = answer(attempt.hello(), own=proposal("otp", "aes-256-gcm")).answer()
    attempt.reply(reply)
    assert msgspec.json.decode(reply.body)["suite"] == "aes-256-gcm"
    with pytest.raises(NoCommonSuite):
        answer(attempt.hello(), own=proposal("new"))


def test_a_reply_that_chooses_a_weaker_suite_is_refused() -> None:
    attempt = Initiator(A, proposal("otp", "aes-256-gcm"), os.urandom)
    reply = answer(attempt.hello()).answer()
    with pytest.raises(NoCommonSuite):
        attempt.reply(resigned(reply, TWO, b"reply", suite="aes-256-gcm"))
    with pytest.raises(NoCommonSuite):
        attempt.reply(resigned(reply, TWO, b"reply", suite=""))


def test_an_older_suite_list_of_the_same_process_is_refused() -> None:
    own = proposal(epoch=3)
    attempt = Initiator(A, own, os.urandom)
    responder = answer(attempt.hello())
    theirs, _ = responder.establish(attempt.reply(responder.answer()))
    older = Initiator(A, replace(own, epoch=2), os.urandom)
    with pytest.raises(NotAuthentic, match="older"):
        answer(older.hello(), known=theirs)
    answer(Initiator(A, proposal(epoch=0), os.urandom).hello(), known=theirs)


def test_a_report_that_contradicts_itself_makes_no_session() -> None:
    attempt = Initiator(A, proposal(outgoing=DirectionReport(0, 0, 0, control_floor=5)), os.urandom)
    with pytest.raises(SessionRefused, match="contradicts"):
        answer(attempt.hello())


def test_a_malformed_encapsulation_key_or_ciphertext_is_refused() -> None:
    attempt = Initiator(A, proposal(), os.urandom)
    signed = attempt.hello()
    with pytest.raises(NotAuthentic):
        answer(resigned(signed, ONE, b"hello", kem="AAAA"))
    with pytest.raises(NotAuthentic):
        attempt.reply(resigned(answer(signed).answer(), TWO, b"reply", kem="AAAA"))


def test_wakes_are_signed_and_count_once() -> None:
    acquaintance = Acquaintance(A)
    message = wake(B, os.urandom)
    acquaintance.wake(message)
    with pytest.raises(Repeated):
        acquaintance.wake(message)
    for wrong in (
        wake(A, os.urandom),
        msgspec.structs.replace(message, nonce=b"n" * 16),
        msgspec.structs.replace(message, link="8-7"),
        msgspec.structs.replace(message, nonce=b""),
    ):
        with pytest.raises(NotAuthentic):
            acquaintance.wake(wrong)
