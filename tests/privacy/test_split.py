"""A ring of real services under taps: of keys of class split no node in between has the CN bits or two shares."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest

from keyhaul.transport.etsi014 import Etsi014Error
from keyhaul.transport.messages.aaa import Grant, SignedGrant
from keyhaul.transport.messages.link import Sealed
from keyhaul.transport.messages.peer import KeyRequest, Transfer
from keyhaul.transport.messages.relay import Deliver, Forward, Submit
from services.ckms.shares import join, name_of
from tests.laboratory import keyhaul
from tests.privacy.conftest import NOTHING_AHEAD
from tests.privacy.evidence import Evidence
from tests.privacy.network import Town, collect, running
from tests.privacy.scenario import _patiently

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("privacy"), pytest.mark.timeout(600)]

RING = Path(__file__).with_name("ring.toml")
ENDS = ("ckms-a", "ckms-b")
BETWEEN = ("ckms-m", "ckms-n", "ckms-e", "ckms-d")
WAYS = ({"ckms-m", "ckms-n"}, {"ckms-e", "ckms-d"})
ROUNDS = 12


@dataclass
class Run:
    """A run that is over."""

    evidence: Evidence
    keys: int = 0
    refused: Etsi014Error | None = None
    demands: list[dict[str, object]] = field(default_factory=list)
    explained: str = ""
    events: str = ""
    metrics: str = ""
    submitted: dict[str, Submit] = field(default_factory=dict)
    """By name, of class split."""
    plain: dict[str, Submit] = field(default_factory=dict)
    """Of other classes."""
    classes: dict[str, str] = field(default_factory=dict)
    """Of each request between the AKMSs, as its grant says."""
    transfers: list[Transfer] = field(default_factory=list)
    delivered: dict[str, Deliver] = field(default_factory=dict)
    heard: defaultdict[str, list[Forward]] = field(default_factory=lambda: defaultdict(list))
    """What each node in between got of other nodes."""
    secrets: defaultdict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """What each of them opened."""

    def names(self, batch: str) -> list[str]:
        return [name_of(batch, number, 2) for number in range(2)]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as scratch:
        with running(Path(scratch) / "r", changes=NOTHING_AHEAD, description=RING) as town:
            found = Run(town.evidence)
            asyncio.run(_live(town, found))
            _look(town, found)
        collect(town)
        _sort(found)
        yield found


async def _live(town: Town, run: Run) -> None:
    """Keys of both classes both ways, and a pair whose paths all meet in b."""
    for customer in ("wary", "plain"):
        for master, slave in (("west", "east"), ("east", "west")):
            first, second = town.client(f"{customer}-{master}"), town.client(f"{customer}-{slave}")
            for _ in range(ROUNDS):
                made = await _patiently(first, f"{customer}-{slave}", 1, None)
                names = [key.key_ID for key in made]
                taken = await second.get_key_with_ids(f"{customer}-{master}", names, deadline=10)
                assert [key.key for key in taken.keys] == [key.key for key in made]
                run.keys += 1
            await first.close()
            await second.close()
    client = town.client("wary-west")
    with pytest.raises(Etsi014Error) as refused:
        await client.get_key("wary-south", deadline=20)
    await client.close()
    run.refused = refused.value


def _look(town: Town, run: Run) -> None:
    at = ("--network", town.directory)
    run.demands = json.loads(keyhaul("path", "list", *at, "--json").stdout)["demands"]
    run.explained = keyhaul("path", "explain", "c", "a", "--class", "split", *at, check=False).stdout
    run.events = keyhaul("topology", "events", *at).stdout
    entry = next(entry for entry in town.facts["services"] if entry["id"] == "ckms-b")
    run.metrics = urlopen(f"http://{entry['metrics']}/metrics", timeout=10).read().decode()


def _sort(run: Run) -> None:
    for service, messages in run.evidence.said.items():
        for said in messages:
            if not said.request or not said.incoming:
                continue
            if said.path == "/v1/carrier.submit":
                submit = msgspec.json.decode(said.body, type=Submit)
                (run.submitted if submit.service_class == "split" else run.plain)[submit.batch] = submit
            elif said.path == "/v1/carrier.deliver":
                deliver = msgspec.json.decode(said.body, type=Deliver)
                run.delivered[deliver.batch] = deliver
            elif said.path == "/v1/peer.request":
                request = msgspec.json.decode(said.body, type=KeyRequest)
                signed = msgspec.json.decode(request.grant, type=SignedGrant)
                run.classes[request.request] = msgspec.json.decode(signed.grant, type=Grant).service_class
            elif said.path == "/v1/peer.transfer":
                run.transfers.append(msgspec.json.decode(said.body, type=Transfer))
            elif said.path == "/v1/relay.forward" and service in BETWEEN:
                sealed = msgspec.json.decode(said.body, type=Sealed)
                run.heard[service].append(msgspec.json.decode(sealed.clear, type=Forward))
        if service in BETWEEN:
            run.secrets[service] = {one.data for one in run.evidence.taps[service] if one.kind == "secret"}


def test_keys_of_the_class_were_delivered(run: Run) -> None:
    assert run.keys == 4 * ROUNDS
    arrived = [run.delivered[batch] for batch in run.submitted if batch in run.delivered]
    assert len(arrived) > ROUNDS
    for deliver in arrived:
        assert deliver.shares == 2
        assert deliver.bits == run.submitted[deliver.batch].bits
    assert all(run.delivered[batch].shares == 1 for batch in run.plain if batch in run.delivered)


def test_keys_of_the_class_came_under_bits_of_the_class_alone(run: Run) -> None:
    made = {"split": 0, "silver": 0}
    for transfer in run.transfers:
        service_class = run.classes[transfer.request]
        bits_of = run.submitted if service_class == "split" else run.plain
        assert {part.batch for part in transfer.cn} <= bits_of.keys()
        made[service_class] += len(transfer.key_ids)
    assert min(made.values()) >= 2 * ROUNDS


def test_the_taps_hear_the_bits_of_a_class_that_is_not_divided(run: Run) -> None:
    """What is found nowhere could have been found."""
    opened = set().union(*run.secrets.values())
    assert any(submit.bits in opened for submit in run.plain.values())
    assert set(run.plain) & {forward.batch for heard in run.heard.values() for forward in heard}


@pytest.mark.parametrize("node", BETWEEN)
def test_no_node_in_between_has_the_bits_or_two_shares_of_them(run: Run, node: str) -> None:
    names = {forward.batch for forward in run.heard[node]}
    seen = 0
    for batch, submit in run.submitted.items():
        assert len(names & set(run.names(batch))) <= 1
        seen += len(names & set(run.names(batch)))
        assert submit.bits not in run.secrets[node]
    assert seen > ROUNDS
    by_length = defaultdict(list)
    for secret in run.secrets[node]:
        by_length[len(secret)].append(secret)
    wanted = {submit.bits for submit in run.submitted.values()}
    for alike in by_length.values():
        assert not any(join([one, other]) in wanted for one, other in combinations(alike, 2))


def test_nodes_of_both_ways_together_have_them(run: Run) -> None:
    """Against which the class does not protect; and the control of the test before."""
    first, second = (set().union(*(run.secrets[node] for node in way)) for way in WAYS)
    wanted = {submit.bits for submit in run.submitted.values()}
    found = {
        whole for one in first for other in second if len(one) == len(other) and (whole := join([one, other])) in wanted
    }
    assert len(found) > ROUNDS


def test_nothing_in_between_names_a_batch_or_relates_its_shares(run: Run) -> None:
    for node in BETWEEN:
        for said in run.evidence.said[node]:
            for batch in run.submitted:
                assert batch.encode() not in said.everything
        for page in run.evidence.taps[node]:
            assert not any(batch.encode() in page.data for batch in run.submitted)
    one, other = ([forward for node in way for forward in run.heard[node]] for way in WAYS)
    split = {name for batch in run.submitted for name in run.names(batch)}
    for mark in ("batch", "label", "reference"):
        left = {getattr(forward, mark) for forward in one if forward.batch in split}
        right = {getattr(forward, mark) for forward in other if forward.batch in split}
        assert left
        assert right
        assert not left & right


def test_where_all_paths_meet_users_hear_what_they_always_hear_and_operators_why(run: Run) -> None:
    assert run.refused is not None
    assert run.refused.status == 503
    assert "split" not in str(run.refused)
    from_there = [said for said in run.evidence.said["ckms-c"] if said.path == "/v1/carrier.submit" and said.request]
    assert from_there
    assert not any(msgspec.json.decode(said.body, type=Submit).batch in run.delivered for said in from_there)
    assert not any(said.path == "/v1/relay.forward" for said in run.evidence.said["ckms-c"])
    assert "refused: there are too few paths without a common node (1 found)" in run.explained
    assert "too few paths without a common node" in run.events


def test_a_demand_that_is_refused_stays_in_the_list_with_why(run: Run) -> None:
    [refused] = [one for one in run.demands if (one["source"], one["target"]) == ("ckms-c", "ckms-a")]
    assert refused["service_class"] == "split"
    assert refused.get("paths", []) == []
    assert refused["refusal"] == {"reason": "there are too few paths without a common node", "paths_found": 1}


def test_the_price_is_shown_at_the_sender(run: Run) -> None:
    shown = {line.split(" ")[0]: float(line.split(" ")[1]) for line in run.metrics.splitlines() if line[0] != "#"}
    divided = shown["keyhaul_ckms_divided_bytes_total"]
    assert divided > 0
    assert shown["keyhaul_ckms_share_bytes_total"] == 2 * divided
    of = '{destination="ckms-a",service_class="split"}'
    assert shown["keyhaul_ckms_link_key_price" + of] == pytest.approx(6 * 1.125)
    assert shown["keyhaul_ckms_link_key_price_undivided" + of] == pytest.approx(3 * 1.125)
