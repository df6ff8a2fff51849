"""A subscription without sockets: a subscriber that only hears what is told knows what is there, however slow it is."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import changes, data, paths, subscribing, types
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.paths import Path, parse, text, to_proto
from keyhaul.agents.gnmi.schema import Module, Schema, container, leaf, list_of
from keyhaul.agents.gnmi.session import AT_ONCE, Notification, Session
from keyhaul.agents.gnmi.tree import DataTree
from tests.keyhaul.agents.gnmi.carrier import Carrier, link

SECOND = 1_000_000_000
LINKS = f"/{ckms.TOP}/links"

ZOO = Schema(
    [
        Module(
            "zoo",
            "tests",
            "2026-01-01",
            "urn:tests:zoo",
            (
                container(
                    "zoo",
                    leaf("open", types.BOOLEAN),
                    container("keeper", leaf("name", types.STRING), leaf("age", types.UINT8), unit=True),
                    list_of(
                        "cage",
                        ["id"],
                        leaf("id", types.UINT8),
                        leaf("clean", types.BOOLEAN),
                        list_of("animal", ["name"], leaf("name", types.STRING), leaf("legs", types.UINT8)),
                        unit=True,
                    ),
                    list_of("path", ["to"], leaf("to", types.STRING), leaf("length", types.UINT8), sampled=True),
                ),
            ),
        )
    ]
)
PATTERNS = (
    "/",
    "/zoo/open",
    "/zoo/cage",
    "/zoo/cage[id=1]",
    "/zoo/cage/animal",
    "/zoo/cage/animal/legs",
    "/zoo/path",
    "/zoo/.../name",
)


def session(schema: Schema, snapshot: Any, *wanted: Any, **facts: Any) -> Session:
    asked = gnmi_pb2.SubscriptionList(subscription=wanted, **facts)
    return Session(schema, subscribing.read(schema, asked), snapshot, 0.0)


def on_change(path: str, heartbeat: float = 0) -> Any:
    return gnmi_pb2.Subscription(
        path=to_proto(parse(path)), mode=gnmi_pb2.ON_CHANGE, heartbeat_interval=round(heartbeat * SECOND)
    )


def sample(path: str, every: float, *, suppress: bool = False, heartbeat: float = 0) -> Any:
    return gnmi_pb2.Subscription(
        path=to_proto(parse(path)),
        mode=gnmi_pb2.SAMPLE,
        sample_interval=round(every * SECOND),
        suppress_redundant=suppress,
        heartbeat_interval=round(heartbeat * SECOND),
    )


def drain(running: Session, snapshot: Any) -> list[Any]:
    found = []
    while (message := running.take(snapshot)) is not None:
        found.append(message)
    return found


def told(running: Session, snapshot: Any) -> list[str]:
    return [
        text(update.path)
        for message in drain(running, snapshot)
        if isinstance(message, Notification)
        for update in message.updates
    ]


def watched(carrier: Carrier, *wanted: Any, **facts: Any) -> Session:
    running = session(carrier.tree.schema, carrier.tree.refresh(), *wanted, **facts)
    carrier.tree.watch(running.changed)
    return running


def test_one_object_for_each_unit_then_the_sync(carrier: Carrier) -> None:
    running = watched(carrier, on_change(LINKS))
    first, second = drain(running, carrier.tree.snapshot())
    assert [text(update.path) for update in first.updates] == [
        f"{LINKS}/link[neighbour=ckms-8]",
        f"{LINKS}/link[neighbour=ckms-16]",
    ]
    assert second == "sync"


def test_updates_only_begins_with_the_sync(carrier: Carrier) -> None:
    running = watched(carrier, on_change(LINKS), updates_only=True)
    assert drain(running, carrier.tree.snapshot()) == ["sync"]
    carrier.links.pop("ckms-8")
    (notification,) = drain(running, carrier.tree.refresh())
    assert [text(path) for path in notification.deletes] == [f"{LINKS}/link[neighbour=ckms-8]"]


def test_who_subscribes_below_a_unit_is_told_leaves(carrier: Carrier) -> None:
    running = watched(carrier, on_change(f"{LINKS}/link/up"))
    drain(running, carrier.tree.snapshot())
    carrier.links["ckms-8"]["rate"] = 1
    assert told(running, carrier.tree.refresh()) == []
    carrier.links["ckms-8"]["up"] = False
    assert told(running, carrier.tree.refresh()) == [f"{LINKS}/link[neighbour=ckms-8]/up"]


def test_a_member_that_vanishes_from_a_unit_is_deleted_before_the_unit_is_told(carrier: Carrier) -> None:
    running = watched(carrier, on_change(LINKS))
    drain(running, carrier.tree.snapshot())
    carrier.links["ckms-8"]["qber"] = None
    (notification,) = drain(running, carrier.tree.refresh())
    assert [text(path) for path in notification.deletes] == [f"{LINKS}/link[neighbour=ckms-8]/qber"]
    assert [text(update.path) for update in notification.updates] == [f"{LINKS}/link[neighbour=ckms-8]"]


def test_what_was_missed_is_counted_and_only_the_latest_told(carrier: Carrier) -> None:
    running = watched(carrier, on_change(LINKS))
    drain(running, carrier.tree.snapshot())
    for rate in range(1, 1001):
        carrier.links["ckms-8"]["rate"] = rate
        carrier.tree.refresh()
        assert running.waiting == 1
    (notification,) = drain(running, carrier.tree.snapshot())
    (update,) = notification.updates
    assert (update.value["rate"], update.duplicates) == (1000, 999)


def test_a_value_with_many_new_members_is_one_value(carrier: Carrier) -> None:
    running = watched(carrier, on_change(LINKS))
    drain(running, carrier.tree.snapshot())
    carrier.links["ckms-8"] = link("ckms-8", rate=1, up=False, latency=3, suite="hybrid", qber=None, pool=[])
    (notification,) = drain(running, carrier.tree.refresh())
    assert [update.duplicates for update in notification.updates] == [0]


def test_entries_that_come_and_go_untold_leave_nothing_behind(carrier: Carrier) -> None:
    running = watched(carrier, on_change(f"/{ckms.TOP}/forwarding/entry"))
    drain(running, carrier.tree.snapshot())
    for number in range(1000):
        carrier.entries = [{"previous": "ckms-8", "label": f"{number:016x}"}]
        carrier.tree.refresh()
        assert running.waiting <= 1
    assert len(told(running, carrier.tree.snapshot())) == 1


def test_samples_come_at_their_times_and_are_not_made_up_for(carrier: Carrier) -> None:
    running = watched(carrier, sample(f"/{ckms.TOP}/relay", 1.0))
    snapshot = carrier.tree.snapshot()
    drain(running, snapshot)
    assert running.deadline == 1.0
    running.due(0.9, snapshot)
    assert told(running, snapshot) == []
    running.due(1.0, snapshot)
    assert told(running, snapshot) == [f"/{ckms.TOP}/relay"]
    running.due(5.5, snapshot)
    assert told(running, snapshot) == [f"/{ckms.TOP}/relay"]
    assert running.deadline == 6.0


def test_redundant_samples_are_left_out_until_the_heartbeat(carrier: Carrier) -> None:
    running = watched(carrier, sample(LINKS, 1.0, suppress=True, heartbeat=10.0))
    drain(running, carrier.tree.snapshot())
    running.due(1.0, carrier.tree.snapshot())
    assert told(running, carrier.tree.snapshot()) == []
    carrier.links["ckms-8"]["rate"] = 1
    carrier.tree.refresh()
    running.due(2.0, carrier.tree.snapshot())
    assert told(running, carrier.tree.snapshot()) == [f"{LINKS}/link[neighbour=ckms-8]"]
    running.due(10.0, carrier.tree.snapshot())
    assert len(told(running, carrier.tree.snapshot())) == 2


def test_a_heartbeat_tells_what_has_not_changed(carrier: Carrier) -> None:
    running = watched(carrier, on_change(f"/{ckms.TOP}/incarnation", heartbeat=2.0))
    drain(running, carrier.tree.snapshot())
    running.due(1.9, carrier.tree.snapshot())
    assert told(running, carrier.tree.snapshot()) == []
    running.due(2.0, carrier.tree.snapshot())
    assert told(running, carrier.tree.snapshot()) == [f"/{ckms.TOP}/incarnation"]


def test_a_poll_brings_everything_and_a_sync(carrier: Carrier) -> None:
    running = watched(carrier, on_change(LINKS), mode=gnmi_pb2.SubscriptionList.POLL)
    assert drain(running, carrier.tree.snapshot()) == []
    for _ in range(2):
        running.poll(carrier.tree.snapshot())
        assert [type(message) for message in drain(running, carrier.tree.snapshot())] == [Notification, str]


def test_much_is_told_in_pieces_and_the_sync_comes_after_all_of_it(carrier: Carrier) -> None:
    carrier.links = {f"ckms-{number}": link(f"ckms-{number}") for number in range(AT_ONCE + 1)}
    running = watched(carrier, on_change(LINKS))
    first, second, third = drain(running, carrier.tree.snapshot())
    assert [len(first.updates), len(second.updates), third] == [AT_ONCE, 1, "sync"]


NAMES = st.sampled_from("abc")
SMALL = st.integers(0, 2)


def entries(key: str, keys: st.SearchStrategy[Any], most: int, **members: st.SearchStrategy[Any]) -> Any:
    entry = st.fixed_dictionaries({key: keys}, optional=members)
    return st.lists(entry, max_size=most, unique_by=lambda made: made[key])


CAGES = entries("id", SMALL, 3, clean=st.booleans(), animal=entries("name", NAMES, 2, legs=SMALL))
WAYS = entries("to", NAMES, 2, length=SMALL)
STATES = st.fixed_dictionaries(
    {},
    optional={
        "open": st.booleans(),
        "keeper": st.fixed_dictionaries({}, optional={"name": NAMES, "age": SMALL}),
        "cage": CAGES,
        "path": WAYS,
    },
)


class Listener:
    """Knows only what it was told: leaves by path."""

    def __init__(self) -> None:
        self.leaves: dict[Path, Any] = {}

    def hear(self, messages: list[Any]) -> None:
        for message in messages:
            if message == "sync":
                continue
            for gone in message.deletes:
                self.leaves = {path: value for path, value in self.leaves.items() if path[: len(gone)] != gone}
            for update in message.updates:
                self.leaves.update(leaves(update.path, update.node, update.value))


def leaves(path: Path, node: Any, value: Any) -> dict[Path, Any]:
    places = changes._leaves(node, value, path, ())
    return {place.path: data.at(value, place.path[len(path) :]) for place in places}


def wanted_leaves(snapshot: Any, patterns: tuple[str, ...]) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    for each in patterns:
        for pattern in paths.resolve(ZOO, to_proto(parse(each))).patterns:
            for path, node, value in data.matching(ZOO.root, snapshot, pattern):
                found.update(leaves(path, node, value))
    return found


@settings(max_examples=100, deadline=None)
@given(
    st.lists(STATES, min_size=1, max_size=8),
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True).map(tuple),
    st.data(),
)
def test_a_slow_listener_knows_in_the_end_what_is_there(
    states: list[dict[str, Any]], patterns: tuple[str, ...], choices: st.DataObject
) -> None:
    now: dict[str, Any] = {}
    tree = DataTree(ZOO, {"/zoo:zoo": lambda: now})
    now = states[0]
    modes = [choices.draw(st.sampled_from(["on-change", "sample", "suppressed", "target"])) for _ in patterns]
    asked = [
        {
            "on-change": on_change(each),
            "sample": sample(each, 1.0),
            "suppressed": sample(each, 1.0, suppress=True),
            "target": gnmi_pb2.Subscription(path=to_proto(parse(each))),
        }[mode]
        for each, mode in zip(patterns, modes, strict=True)
    ]
    running = session(ZOO, tree.refresh(), *asked)
    tree.watch(running.changed)
    listener, clock = Listener(), 0.0
    for state in states[1:]:
        now = state
        tree.refresh()
        clock += choices.draw(st.sampled_from([0.0, 0.5, 1.0]))
        running.due(clock, tree.snapshot())
        for _ in range(choices.draw(st.integers(0, 2))):
            message = running.take(tree.snapshot())
            listener.hear([] if message is None else [message])
    running.due(clock + 1.0, tree.snapshot())
    listener.hear(drain(running, tree.snapshot()))
    assert listener.leaves == wanted_leaves(tree.snapshot(), patterns)


@settings(deadline=None)
@given(STATES, STATES)
def test_changes_lead_from_one_state_to_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = (data.frozen(ZOO.root, {"zoo:zoo": state}) for state in (old, new))
    found = changes.between(ZOO.root, before, after)
    everything = leaves((), ZOO.root, before)
    for deletion in found.deleted:
        everything = {path: value for path, value in everything.items() if path[: len(deletion.top)] != deletion.top}
    for place in found.updated:
        everything[place.path] = data.at(after, place.path)
    assert everything == leaves((), ZOO.root, after)


@settings(deadline=None)
@given(STATES, STATES)
def test_what_is_the_same_stays_the_same_object_and_all_is_as_if_it_were_new(old: Any, new: Any) -> None:
    former = data.frozen(ZOO.root, {"zoo:zoo": old})
    assert data.frozen(ZOO.root, {"zoo:zoo": old}, former) is former
    assert data.frozen(ZOO.root, {"zoo:zoo": new}, former) == data.frozen(ZOO.root, {"zoo:zoo": new})
