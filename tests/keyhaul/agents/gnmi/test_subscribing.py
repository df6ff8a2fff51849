"""What a SubscriptionList may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import subscribing
from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.paths import parse, to_proto
from keyhaul.agents.gnmi.schema import Schema
from keyhaul.agents.gnmi.subscribing import Mode

SCHEMA = Schema([ckms.MODULE])
SECOND = 1_000_000_000


def asked(path: str = "/carrier/links", mode: int = gnmi_pb2.SAMPLE, **facts: Any) -> Any:
    return gnmi_pb2.Subscription(path=to_proto(parse(path)), mode=mode, **facts)


def listed(*subscriptions: Any, **facts: Any) -> Any:
    return gnmi_pb2.SubscriptionList(subscription=subscriptions, **facts)


def test_a_sample_interval_of_zero_is_the_lowest() -> None:
    (part,) = subscribing.read(SCHEMA, listed(asked())).parts
    assert part.sample == subscribing.LOWEST_INTERVAL


def test_the_target_samples_levels_and_tells_changes_of_the_rest() -> None:
    subscriptions = subscribing.read(SCHEMA, listed(asked(mode=gnmi_pb2.TARGET_DEFINED)))
    assert [(part.sample, part.sampled) for part in subscriptions.parts] == [(None, False), (1.0, True)]


def test_once_and_poll_have_no_times() -> None:
    once = listed(asked(sample_interval=1), mode=gnmi_pb2.SubscriptionList.ONCE)
    assert subscribing.read(SCHEMA, once).mode is Mode.ONCE
    assert subscribing.read(SCHEMA, once).parts[0].sample is None


def test_the_same_path_twice_is_told_once() -> None:
    assert len(subscribing.read(SCHEMA, listed(asked(), asked())).parts) == 1


def test_no_paths_is_a_subscription_to_nothing() -> None:
    assert subscribing.read(SCHEMA, listed()).parts == ()


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (listed(asked("/carrier/weather")), Code.UNIMPLEMENTED),
        (listed(asked(sample_interval=1)), Code.INVALID_ARGUMENT),
        (listed(asked(mode=gnmi_pb2.ON_CHANGE, heartbeat_interval=1)), Code.INVALID_ARGUMENT),
        (listed(asked(mode=gnmi_pb2.TARGET_DEFINED, sample_interval=SECOND)), Code.INVALID_ARGUMENT),
        (listed(asked(mode=7)), Code.INVALID_ARGUMENT),
        (listed(asked(), mode=7), Code.INVALID_ARGUMENT),
        (listed(asked(), encoding=gnmi_pb2.PROTO), Code.UNIMPLEMENTED),
        (listed(asked(), use_aliases=True), Code.UNIMPLEMENTED),
        (listed(asked(), use_models=[gnmi_pb2.ModelData(name="openconfig-interfaces")]), Code.UNIMPLEMENTED),
        (listed(*[asked()] * 65), Code.RESOURCE_EXHAUSTED),
        (listed(*[asked("/carrier/.../*")] * 64), None),
    ],
)
def test_what_is_refused(wanted: Any, code: Code | None) -> None:
    if code is None:
        assert len(subscribing.read(SCHEMA, wanted).parts) <= 256
        return
    with pytest.raises(Refused) as caught:
        subscribing.read(SCHEMA, wanted)
    assert caught.value.code is code
