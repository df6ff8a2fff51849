"""What must not be where: blind (who learns what) and silent (key bits in no text), as one function over a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.privacy.evidence import Evidence, Known, Place
from tests.privacy.search import Bits, Texts, views

IDENTITY = "a CKMS or the controller learns an identity of users"
TOPOLOGY = "a user learns of the carrier"
INNER = "an AKMS or AAA learns of the inner carrier"
KEYS_OF_USERS = "KSA bits where they must not be"
CARRIED_KEYS = "CN bits where they must not be"
LINK_KEYS = "KMA bits where they must not be"
OWN_KEYS = "a service's own keys where they must not be"
PROCESS = "a process that others can look into"
RULES = (IDENTITY, TOPOLOGY, INNER, KEYS_OF_USERS, CARRIED_KEYS, LINK_KEYS, OWN_KEYS, PROCESS)

_CARRYING = frozenset({"/v1/carrier.submit", "/v1/carrier.deliver"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken, and where."""

    rule: str
    service: str
    kind: str
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.service}, {self.kind} {self.place}: {self.what}"


def findings(evidence: Evidence, known: Known, *, kinds: frozenset[tuple[str, str]] | None = None) -> list[Finding]:
    """Every breach, each place and rule once.

    Args:
        evidence: of the run.
        known: what to look for.
        kinds: (role, kind) of the only places to look at; None: everywhere.
    """
    places = (
        place
        for place in evidence.everything()
        if (kinds is None or (place.role, place.kind) in kinds) and not _looked_at_elsewhere(place)
    )
    found: dict[Finding, None] = {}
    anything = Bits.of_all((known.ksa, known.cn, known.kma, known.stored, known.private, known.key_ids))
    for place in places:
        checks = list(_checks(place, known))
        texts = [(rule, needle) for rule, needle in checks if isinstance(needle, Texts)]
        bits = [(rule, needle) for rule, needle in checks if isinstance(needle, Bits)]
        encrypted = place.kind == "file" and ".db" in place.name
        for view in views(place.data, 0) if encrypted else views(place.data):
            for rule, needle in texts:
                text = needle.found_in(view)
                if text is not None:
                    found[Finding(rule, place.service, place.kind, place.name, repr(text))] = None
            if anything.found_in(view):
                for rule, secrets in bits:
                    if secrets.found_in(view):
                        found[Finding(rule, place.service, place.kind, place.name, secrets.name)] = None
    found.update(dict.fromkeys(_processes(evidence)))
    return list(found)


def _checks(place: Place, known: Known) -> Iterator[tuple[str, Texts | Bits]]:
    if place.role == "ckms" or place.kind == "wire":
        yield IDENTITY, known.identities
        yield IDENTITY, known.key_ids
    if place.role == "controller":
        yield IDENTITY, known.beyond_carrier
        yield IDENTITY, known.key_ids
    if place.role in ("akms", "aaa"):
        yield INNER, known.inner
    if place.role == "ukms" and _heard_by_user(place):
        yield TOPOLOGY, known.topology[place.service]
    if not _may_hold_ksa(place):
        yield KEYS_OF_USERS, known.ksa
    if place.kind == "memory":
        return
    if not _may_hold_cn(place):
        yield CARRIED_KEYS, known.cn
    if not _may_hold_kma(place):
        yield LINK_KEYS, known.kma
    yield OWN_KEYS, known.stored
    yield OWN_KEYS, known.private


def _looked_at_elsewhere(place: Place) -> bool:
    """Whether the same message is looked at where it arrives, under rules that are no weaker."""
    said = place.said
    if said is None:
        return False
    if place.role == "qkdm":
        return True
    to_ckms = place.role != "ckms" or _role(said.peer) == "ckms"
    return not said.incoming and said.peer.startswith("spiffe:") and to_ckms


def _heard_by_user(place: Place) -> bool:
    """What a UKMS is told, and what it tells its SAEs or shows its own operator."""
    if place.kind == "message" and place.said is not None:
        return place.said.incoming or not place.said.peer.startswith("spiffe:")
    return place.kind in ("secret", "page", "log", "row")


def _may_hold_ksa(place: Place) -> bool:
    said = place.said
    if said is not None:
        user = place.role == "ukms" and not said.peer.startswith(("spiffe:", "qkdm-"))
        return user and not said.request and "_keys" in said.path
    return place.role == "ukms" and place.kind == "secret" and place.name == "delivery.push"


def _may_hold_cn(place: Place) -> bool:
    said = place.said
    if said is not None:
        return said.request and said.path in _CARRYING and {place.role, _role(said.peer)} == {"akms", "ckms"}
    return place.role == "ckms" and place.kind == "secret" and place.name == "relay.forward"


def _may_hold_kma(place: Place) -> bool:
    said = place.said
    if said is None or said.request:
        return False
    return "_keys" in said.path and (place.role == "qkdm" or said.peer.startswith("qkdm-"))


def _role(peer: str) -> str:
    """The role in ``spiffe://DOMAIN/ROLE/NODE``."""
    parts = peer.split("/")
    return parts[3] if len(parts) == 5 else ""


def _processes(evidence: Evidence) -> Iterator[Finding]:
    for service, facts in evidence.facts.items():
        if facts.get("core_limit") != (0, 0):
            yield Finding(PROCESS, service, "process", "limits", f"core dumps of {facts.get('core_limit')} bytes")
        for name in facts.get("readable", ()):
            yield Finding(PROCESS, service, "process", f"/proc/PID/{name}", "readable by processes of the same user")
        for name, mode in facts.get("modes", {}).items():
            if mode & 0o077:
                yield Finding(PROCESS, service, "file", name, f"mode {mode:04o}")
