"""Whatever a client sends: it is served, or refused with one of the specification's codes; nothing else happens."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import getting, setting, subscribing
from keyhaul.agents.gnmi.errors import Refused
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.paths import parse, to_proto
from keyhaul.agents.gnmi.session import Session
from tests.keyhaul.agents.gnmi.carrier import STATEMENTS, Carrier

CARRIER = Carrier()
CARRIER.tree.refresh()

WORDS = st.sampled_from(
    [ckms.TOP, "carrier", "links", "link", "pool", "forwarding", "statement", "path", "relay", "failure", "serial"]
    + ["body", "version", "qkd_node", "qkd_links", "qkd_link", "qkdl_id", "neighbour", "*", "...", "", ":", "a:b"]
)
KEYS = st.dictionaries(
    st.sampled_from(["neighbour", "serial", "direction", "rank", "x", ""]),
    st.sampled_from(["ckms-8", "7", "-1", "*", "", "outgoing", "9" * 30, "\0", "ü"]),
    max_size=2,
)
ELEMENTS = st.builds(lambda name, keys: gnmi_pb2.PathElem(name=name, key=keys), WORDS, KEYS)
PLACES = st.sampled_from(["/", "/carrier", "/carrier/links", "/carrier/forwarding", f"{STATEMENTS}[serial=7]"])
ORIGINS = st.sampled_from(["", "", "", "keyhaul-ckms", "rfc7951", "openconfig"])
PATHS = st.builds(
    lambda elements, origin, target: gnmi_pb2.Path(elem=elements, origin=origin, target=target),
    st.lists(ELEMENTS, max_size=6) | PLACES.map(lambda place: to_proto(parse(place)).elem),
    ORIGINS,
    st.sampled_from(["", "", "t"]),
)
JSON = st.recursive(
    st.sampled_from(["null", "1", '"1"', "true", '"e30="', "1e400", "-0", '"\\ud800"', "[]", "{}"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda each: f"[{','.join(each)}]"),
        st.lists(st.tuples(WORDS, inner), max_size=3).map(
            lambda members: "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"
        ),
    ),
    max_leaves=6,
)
VALUES = st.one_of(
    JSON.map(lambda text: gnmi_pb2.TypedValue(json_val=text.encode())),
    JSON.map(lambda text: gnmi_pb2.TypedValue(json_ietf_val=text.encode())),
    st.binary(max_size=8).map(lambda raw: gnmi_pb2.TypedValue(json_ietf_val=raw)),
    st.sampled_from(
        [
            gnmi_pb2.TypedValue(),
            gnmi_pb2.TypedValue(uint_val=3),
            gnmi_pb2.TypedValue(bytes_val=b"x"),
            gnmi_pb2.TypedValue(leaflist_val=gnmi_pb2.ScalarArray()),
            gnmi_pb2.TypedValue(double_val=float("nan")),
        ]
    ),
)
UPDATES = st.builds(lambda path, value: gnmi_pb2.Update(path=path, val=value), PATHS, VALUES)
SOME = st.integers(0, 5)


@settings(deadline=None)
@given(st.lists(PATHS, max_size=3), st.none() | PATHS, st.integers(0, 5), SOME)
def test_any_get(asked: list[Any], prefix: Any, kind: int, encoding: int) -> None:
    request = gnmi_pb2.GetRequest(path=asked, prefix=prefix, type=kind, encoding=encoding)
    with contextlib.suppress(Refused):
        answered = getting.answer(CARRIER.tree.schema, CARRIER.tree.snapshot(), request, 1)
        assert len(answered.notification) == len(asked)


@settings(deadline=None, max_examples=300)
@given(st.lists(PATHS, max_size=2), st.lists(UPDATES, max_size=2), st.lists(UPDATES, max_size=2), st.none() | PATHS)
def test_any_set(delete: list[Any], replace: list[Any], update: list[Any], prefix: Any) -> None:
    request = gnmi_pb2.SetRequest(delete=delete, replace=replace, update=update, prefix=prefix)
    with contextlib.suppress(Refused):
        planned = setting.plan(CARRIER.tree.schema, CARRIER.tree.writers, request)
        assert len(planned.response.response) == len(delete) + len(replace) + len(update)


@settings(deadline=None)
@given(st.lists(st.tuples(PATHS, SOME, SOME, st.booleans()), max_size=3), SOME, SOME, st.booleans(), st.none() | PATHS)
def test_any_subscription(asked: list[Any], mode: int, encoding: int, updates_only: bool, prefix: Any) -> None:
    wanted = [
        gnmi_pb2.Subscription(path=path, mode=how, sample_interval=every * 10**9, suppress_redundant=suppress)
        for path, how, every, suppress in asked
    ]
    request = gnmi_pb2.SubscriptionList(
        subscription=wanted, mode=mode, encoding=encoding, updates_only=updates_only, prefix=prefix
    )
    with contextlib.suppress(Refused):
        subscriptions = subscribing.read(CARRIER.tree.schema, request)
        session = Session(CARRIER.tree.schema, subscriptions, CARRIER.tree.snapshot(), 0.0)
        session.due(100.0, CARRIER.tree.snapshot())
        while session.take(CARRIER.tree.snapshot()) is not None:
            pass
        assert session.waiting == 0
