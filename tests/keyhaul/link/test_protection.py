from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.keys.material import KeyMaterial
from keyhaul.link.channel import Archive, QuantumSource, bootstrap_receiver
from keyhaul.link.pads import Block, PadShortage, PadSpent, ReceiverPads, SenderPads
from keyhaul.link.protection.interface import AuthenticationFailed, Protection, Realm, Rotation, frame
from keyhaul.link.protection.registry import PROTECTIONS, UnknownSuite, acceptable, choose
from keyhaul.transport.messages.link import SealedHeader, Stream

SUITES = sorted(PROTECTIONS)


class Ends:
    """Sender and receiver of one direction, with the same pads."""

    def __init__(self, suite: str, rotation: Rotation | None = None, size: int = 4096) -> None:
        bits = {stream: os.urandom(size) for stream in Stream}
        self.out = {
            stream: SenderPads([Block(1, stream, 0, b"", KeyMaterial(bits[stream]))], requested=size, granted=size)
            for stream in Stream
        }
        self.into = {
            stream: ReceiverPads([Block(1, stream, 0, b"", KeyMaterial(bits[stream]))], granted=size)
            for stream in Stream
        }
        self.archive = Archive(self.into, bootstrap_receiver(bytes(1024)), True)
        self.source = QuantumSource(self.out)
        rotation = rotation or Rotation()
        self.sender: Protection = PROTECTIONS[suite](rotation)
        self.receiver: Protection = PROTECTIONS[suite](rotation)
        self.sequence = 0

    def seal(
        self, secret: bytes, clear: bytes = b"clear", associated: bytes = b"", now: float = 0.0
    ) -> tuple[SealedHeader, list[bytes]]:
        stream = Stream.PAYLOAD if secret else Stream.CONTROL
        need = self.sender.needs(Realm.QUANTUM, stream, len(secret), now)
        before = {each: self.out[each].used for each in Stream}
        ticket = self.sender.prepare(self.source, stream, len(secret), now)
        assert {each: self.out[each].used - before[each] for each in Stream} == {each: need.of(each) for each in Stream}
        head = SealedHeader(
            v=1,
            link="l",
            kind="k",
            lane=0,
            sender=b"s",
            receiver=b"r",
            sequence=self.sequence,
            suite=self.sender.name,
            stream=stream,
            offset=ticket.offset,
            key=ticket.key,
        )
        header = msgspec.json.encode(head)
        ciphertext, tag = self.sender.seal(ticket, self.sequence, header, clear, associated, secret)
        self.sequence += 1
        return head, [header, clear, associated, ciphertext, tag]

    def open(self, head: SealedHeader, parts: list[bytes]) -> bytes:
        return self.receiver.open(self.archive, head, *parts)


@pytest.mark.parametrize("suite", SUITES)
@given(secrets=st.lists(st.tuples(st.binary(max_size=80), st.binary(max_size=20)), min_size=1, max_size=12))
def test_what_is_sealed_opens_in_any_order(suite: str, secrets: list[tuple[bytes, bytes]]) -> None:
    ends = Ends(suite)
    sealed = [(secret, *ends.seal(secret, clear)) for secret, clear in secrets]
    for secret, head, parts in reversed(sealed):
        assert ends.open(head, parts) == secret


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("secret", [b"", b"thirty-two bytes of a secret key"])
def test_any_changed_byte_is_refused_and_nothing_is_marked(suite: str, secret: bytes) -> None:
    ends = Ends(suite)
    head, parts = ends.seal(secret, b"some clear text", b"associated")
    for part, content in enumerate(parts):
        for place in range(len(content)):
            changed = list(parts)
            changed[part] = content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :]
            with pytest.raises(AuthenticationFailed):
                ends.open(head, changed)
    for part in range(5):
        for changed_part in (parts[part] + b"\0", parts[part][:-1]):
            if changed_part != parts[part]:
                with pytest.raises((AuthenticationFailed, PadSpent)):
                    ends.open(head, [*parts[:part], changed_part, *parts[part + 1 :]])
    assert ends.open(head, parts) == secret


@pytest.mark.parametrize("suite", SUITES)
def test_bytes_cannot_move_between_the_parts(suite: str) -> None:
    ends = Ends(suite)
    head, (header, clear, associated, ciphertext, tag) = ends.seal(b"secret!!", b"clear", b"assoc")
    for parts in (
        [header, clear + associated, b"", ciphertext, tag],
        [header, b"", clear + associated, ciphertext, tag],
        [header + clear, b"", associated, ciphertext, tag],
        [header, clear, associated + ciphertext, b"", tag],
    ):
        with pytest.raises((AuthenticationFailed, PadSpent)):
            ends.open(head, parts)


@given(st.lists(st.tuples(*[st.binary(max_size=3)] * 4), min_size=2, max_size=40, unique=True))
def test_the_authenticated_input_is_injective(messages: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
    assert len({frame(*message) for message in messages}) == len(messages)


@pytest.mark.parametrize("suite", SUITES)
def test_a_message_does_not_open_at_another_place(suite: str) -> None:
    ends = Ends(suite)
    first, parts = ends.seal(b"first secret")
    second, _ = ends.seal(b"other secret")
    with pytest.raises((AuthenticationFailed, PadSpent)):
        ends.open(second, parts)
    with pytest.raises((AuthenticationFailed, PadSpent)):
        ends.open(msgspec.structs.replace(first, stream=Stream.CONTROL), parts)
    with pytest.raises((AuthenticationFailed, PadSpent)):
        ends.open(msgspec.structs.replace(first, offset=-1024, key=-1024), parts)
    assert ends.open(first, parts) == b"first secret"


def test_a_one_time_pad_is_used_once() -> None:
    ends = Ends("otp")
    head, parts = ends.seal(b"a secret")
    assert ends.open(head, parts) == b"a secret"
    with pytest.raises(PadSpent):
        ends.open(head, parts)


def test_a_one_time_pad_message_costs_its_length_and_a_tag() -> None:
    ends = Ends("otp")
    ends.seal(b"x" * 100)
    assert (ends.out[Stream.CONTROL].used, ends.out[Stream.PAYLOAD].used) == (16, 116)
    ends.seal(b"")
    assert (ends.out[Stream.CONTROL].used, ends.out[Stream.PAYLOAD].used) == (32, 116)


def test_an_aead_key_is_replaced_after_messages_bytes_and_seconds() -> None:
    ends = Ends("aes-256-gcm", Rotation(messages=3, bytes=100, seconds=10.0))
    offsets = [ends.seal(b"x", now=0.0)[0].offset for _ in range(4)]
    assert offsets == [0, 0, 0, 32]
    assert ends.seal(b"x" * 98, now=1.0)[0].offset == 32
    assert ends.seal(b"xx", now=1.0)[0].offset == 64
    assert ends.seal(b"x", now=10.9)[0].offset == 64
    assert ends.seal(b"x", now=11.0)[0].offset == 96


@pytest.mark.parametrize("suite", SUITES)
def test_without_pad_nothing_is_sealed(suite: str) -> None:
    ends = Ends(suite, size=31)
    with pytest.raises(PadShortage):
        ends.seal(b"x" * 32)


def test_floors_and_lists_choose_the_suite() -> None:
    assert acceptable(["aes-256-gcm", "otp"], "aes-256-gcm") == ("aes-256-gcm", "otp")
    assert acceptable(["aes-256-gcm", "otp"], "otp") == ("otp",)
    with pytest.raises(UnknownSuite, match="as strong"):
        acceptable(["aes-256-gcm"], "otp")
    with pytest.raises(UnknownSuite, match="rot13"):
        acceptable(["rot13"], "otp")
    assert choose(["otp", "aes-256-gcm"], ["aes-256-gcm", "otp"]) == "otp"
    assert choose(["new", "otp"], ["new", "otp"]) == "otp"
    assert choose(["otp"], ["aes-256-gcm"]) is None
