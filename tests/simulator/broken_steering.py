"""Deliberately broken controllers, and carrier KMSs that trust too much, each against one of the rules of steering."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import msgspec

from controller.admission import admit
from controller.admission.classes import ServiceClass
from controller.admission.reservations import Reservations
from controller.paths.compute import path_along
from controller.paths.constraints import UNCONSTRAINED
from controller.steering import installation
from controller.steering.laying import Laying
from controller.steering.routes import Step
from keyhaul.agents.signing import Verifier
from keyhaul.agents.statements import StatedHop, Statement
from keyhaul.randomness import label
from services.ckms.installed import Installed
from tests.simulator.broken import Variant
from tests.simulator.settings import Settings


@contextmanager
def older_accepted() -> Iterator[None]:
    """Nodes that do not look whether a statement is later than what they accepted before."""
    with patch.object(Installed, "_check_order", lambda self, statement, high: None):
        yield


@contextmanager
def process_not_asked_for() -> Iterator[None]:
    """Nodes that take what is later than what their store has, even if it was for a former process."""
    honest: Any = Installed._check_order

    def check(self: Installed, statement: Statement, high: Any) -> None:
        honest(self, msgspec.structs.replace(statement, incarnation=self.incarnation), high)

    with patch.object(Installed, "_check_order", check):
        yield


@contextmanager
def signature_not_checked() -> Iterator[None]:
    """Nodes that read what they are told and do not verify it."""
    decoder = msgspec.json.Decoder(Statement)
    with patch.object(Verifier, "verify", lambda self, signed: decoder.decode(signed.body)):
        yield


@contextmanager
def path_before_its_entries() -> Iterator[None]:
    """Controllers that put a path in force as soon as one node has confirmed."""
    with patch.object(Laying, "entered_all", True):
        yield


@contextmanager
def class_ignored() -> Iterator[None]:
    """Controllers that take any link for any class."""

    def constraints(self: ServiceClass, rate: int, further: Any = UNCONSTRAINED) -> Any:
        return replace(further, rate=max(further.rate, self.link_rate(rate)))

    with patch.object(ServiceClass, "constraints", constraints):
        yield


@contextmanager
def promised_twice() -> Iterator[None]:
    """Controllers that do not add up what they promised."""
    with patch.object(Reservations, "_excess", lambda self, view, hop, further=None: 0):
        yield


@contextmanager
def shares_meet() -> Iterator[None]:
    """Controllers that let shares of one key take paths that meet."""
    ways = (("ckms-2", "ckms-3", "ckms-10", "ckms-5"), ("ckms-2", "ckms-4", "ckms-11", "ckms-10", "ckms-5"))

    def paths(view: Any, source: str, target: str, count: int, constraints: Any, policy: Any) -> Any:
        found = [way if way[0] == source else way[::-1] for way in ways]
        return [path_along(view, nodes, _links(view, nodes), policy) for nodes in found]

    with patch.object(admit, "paths_for_shares", paths):
        yield


@contextmanager
def ring_of_entries() -> Iterator[None]:
    """Controllers that install entries beside a path which lead to one another."""
    honest: Any = vars(installation)["routes_of"]
    ring = ("ckms-2", "ckms-3", "ckms-4")

    def routes_of(admission: Any, around: Any, kept: Any, source: Any) -> Any:
        routes = honest(admission, around, kept, source)
        if not routes.steps:
            return routes
        names = [label(source) for _ in ring]
        model = routes.steps[0].says
        turns = [
            Step(
                ring[place],
                msgspec.structs.replace(
                    model,
                    label=names[place],
                    previous=ring[place - 1],
                    next=StatedHop(neighbour=ring[place - 2], label=names[place - 2]),
                ),
                rank=0,
            )
            for place in range(3)
        ]
        return replace(routes, steps=(*routes.steps, *turns))

    with patch.object(installation, "routes_of", routes_of):
        yield


def _links(view: Any, nodes: Sequence[str]) -> list[str]:
    ends = {frozenset((link.a, link.b)): link.id for link in view.links}
    return [ends[frozenset(pair)] for pair in pairwise(nodes)]


def _steered(**options: Any) -> Callable[[], Settings]:
    return partial(Settings, **({"seconds": 10.0, "controllers": 1, "static": False} | options))


STEERING_VARIANTS = [
    Variant("older accepted", older_accepted, _steered(statement_thief=2.0), frozenset({"fenced"})),
    Variant(
        "process not asked for",
        process_not_asked_for,
        _steered(statement_thief=100.0, put_back=0.8, harmed="ckms-2", wishes=3.0, static=True, seconds=12.0),
        frozenset({"fenced"}),
    ),
    Variant("signature not checked", signature_not_checked, _steered(statement_thief=2.0), frozenset({"signed"})),
    Variant("path before its entries", path_before_its_entries, _steered(ladder=True), frozenset({"complete"})),
    Variant(
        "class ignored",
        class_ignored,
        _steered(ladder=True, wishes=2.0, meddling={"two links cut": 1.0}),
        frozenset({"constrained"}),
    ),
    Variant("promised twice", promised_twice, _steered(wishes=3.0, static=True), frozenset({"reserved"})),
    Variant("ring of entries", ring_of_entries, _steered(ladder=True), frozenset({"loop"})),
    Variant("shares meet", shares_meet, _steered(ladder=True, wishes=3.0), frozenset({"disjoint"})),
]
