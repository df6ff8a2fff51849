"""Every byte of a run with known identities and known keys: none is where it must not be."""

from __future__ import annotations

import pytest

from tests.privacy import rules
from tests.privacy.conftest import Run
from tests.privacy.leaks import LEAKS
from tests.privacy.network import ALONE
from tests.privacy.search import views

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("privacy"), pytest.mark.timeout(600)]


def test_the_run_was_a_real_one(honest: Run) -> None:
    """What is found nowhere must have been somewhere: the taps heard all interfaces, each kind of key is known."""
    known = honest.known
    assert honest.keys >= 48
    for bits in (known.ksa, known.cn, known.kma, known.stored, known.private, known.key_ids):
        assert bits.count > 10, bits.name
    heard = {said.path for messages in honest.evidence.said.values() for said in messages}
    for operation in (
        *("link.hello", "link.control", "relay.forward", "relay.acknowledge", "carrier.submit", "carrier.deliver"),
        *("carrier.outcome", "peer.request", "peer.transfer", "access.request", "delivery.push", "aaa.authorise"),
        *("path.request", "network.links", "network.events", "network.explain"),
        *("network.quarantine", "path.exposures", "carrier.exposed"),
    ):
        assert f"/v1/{operation}" in heard
    kinds = {place.kind for place in honest.evidence.everything()}
    assert {"message", "gnmi", "secret", "log", "page", "row", "file", "process"} <= kinds
    told = b"".join(place.data for place in honest.evidence.everything() if place.kind == "gnmi")
    assert all(words in told for words in (b"ckms-middlewich", b"keyhaul-ckms:pool", b"statement", b"signature"))
    assert {"demands", "statements", "events"} <= {
        place.name for place in honest.evidence.everything() if (place.role, place.kind) == ("controller", "row")
    }
    assert {refused.status for refused in honest.refusals} >= {400, 401, 404, 405, 413}
    assert {refused.what for refused in honest.failures} == {"AAA down", "carrier down, keys used up", "AKMS down"}


@pytest.mark.parametrize("rule", rules.RULES)
def test_nothing_is_where_it_must_not_be(honest: Run, rule: str) -> None:
    found = [finding for finding in honest.findings if finding.rule == rule]
    assert not found, "\n".join(map(str, found[:40]))


def test_a_core_image_of_a_carrier_node_would_show_no_users(honest: Run) -> None:
    """The memory of a CKMS that runs by itself: no identity, key ID or KSA bits, though CN bits pass it."""
    memory = honest.memory[ALONE]
    if not memory:
        pytest.skip("this user may not read the memory of a hardened process")
    assert b"ckms-middlewich" in memory
    known = honest.known
    for view in views(memory, 1):
        assert known.identities.found_in(view) is None
        assert not known.ksa.found_in(view)
        assert not known.key_ids.found_in(view)


def test_the_wire_was_heard(honest: Run) -> None:
    """As much as TLS carries of it: headers are compressed there."""
    if not honest.wire:
        pytest.skip("this user may not listen to the loopback interface")
    [wire] = [place for place in honest.evidence.everything() if place.kind == "wire"]
    heard = sum(len(said.everything) for messages in honest.evidence.said.values() for said in messages) // 2
    assert len(wire.data) > heard / 4


@pytest.mark.parametrize("name", LEAKS)
def test_a_service_that_leaks_is_found(leaking: Run, name: str) -> None:
    leak = LEAKS[name]
    if leak.kind == "wire" and not leaking.wire:
        pytest.skip("this user may not listen to the loopback interface")
    assert any(
        finding.rule == leak.rule and finding.service.startswith(leak.role) and finding.kind == leak.kind
        for finding in leaking.findings
    )
