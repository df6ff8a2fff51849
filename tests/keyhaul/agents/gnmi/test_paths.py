"""Paths: the forms that clients write come to one, wildcards to what the schema has, errors to the specification's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import paths
from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.models import ckms, etsi015
from keyhaul.agents.gnmi.paths import Match, Step, parse, step, text, to_proto
from keyhaul.agents.gnmi.schema import Schema

SCHEMA = Schema([ckms.MODULE, etsi015.MODULE])
LINK = (Match(ckms.TOP), Match("links"), Match("link", (("neighbour", "ckms-8"),)))


def proto(path: str, origin: str = "", target: str = "") -> Any:
    return to_proto_as_is(parse(path), origin, target)


def to_proto_as_is(path: paths.Path, origin: str, target: str) -> Any:
    message = gnmi_pb2.Path(origin=origin, target=target)
    for each in path:
        message.elem.add(name=each.name, key=dict(each.keys))
    return message


def resolved(path: str, origin: str = "", prefix: Any = None) -> paths.Asked:
    return paths.resolve(SCHEMA, proto(path, origin), prefix)


def refused(path: Any, prefix: Any = None) -> Code:
    with pytest.raises(Refused) as caught:
        paths.resolve(SCHEMA, path, prefix)
    return caught.value.code


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/carrier/links/link[neighbour=ckms-8]", ""),
        ("/keyhaul-ckms:carrier/links/link[neighbour=ckms-8]", ""),
        ("/keyhaul-ckms:carrier/keyhaul-ckms:links/link[neighbour=ckms-8]", ""),
        ("/carrier/links/link[neighbour=ckms-8]", "keyhaul-ckms"),
        ("/keyhaul-ckms:carrier/links/link[neighbour=ckms-8]", "keyhaul-ckms"),
        ("/keyhaul-ckms:carrier/links/link[neighbour=ckms-8]", "rfc7951"),
    ],
)
def test_all_forms_name_the_same(path: str, origin: str) -> None:
    assert resolved(path, origin) == ((LINK,), origin, True)


def test_a_prefix_stands_before_the_path() -> None:
    prefix = proto("/carrier/links", "keyhaul-ckms", "node-9")
    assert resolved("/link[neighbour=ckms-8]", prefix=prefix).patterns == (LINK,)


def test_the_root_is_the_empty_path() -> None:
    assert resolved("/") == (((),), "", True)
    assert resolved("/", "keyhaul-ckms").patterns == ((Match(ckms.TOP),),)


def test_keys_that_are_missing_or_wild_match_any() -> None:
    anywhere = ((*LINK[:2], Match("link", (("neighbour", None),))),)
    assert resolved("/carrier/links/link") == (anywhere, "", False)
    assert resolved("/carrier/links/link[neighbour=*]") == (anywhere, "", False)
    (path,) = resolved("/carrier/forwarding/path[rank=007]").patterns
    assert path[-1].keys == (("destination", None), ("origin", None), ("rank", "7"), ("service-class", None))


def test_wild_names_come_to_what_the_schema_has() -> None:
    assert {pattern[-1].name for pattern in resolved("/carrier/*").patterns} >= {
        "links",
        "relay",
        "forwarding",
        "version",
    }
    everywhere = resolved("/carrier/.../bytes").patterns
    assert {pattern[-2].name for pattern in everywhere} == {"relay", "entry", "path"}
    assert not resolved("/*").exact


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (proto("/carrier/weather"), Code.UNIMPLEMENTED),
        (proto("/weather"), Code.UNIMPLEMENTED),
        (proto("/carrier/version/deeper"), Code.UNIMPLEMENTED),
        (proto("/carrier/etsi-qkd-sdn-node:links"), Code.UNIMPLEMENTED),
        (proto("/interfaces", "openconfig"), Code.UNIMPLEMENTED),
        (proto("/qkd_node", "keyhaul-ckms"), Code.UNIMPLEMENTED),
        (proto("/etsi-qkd-sdn-node:qkd_node", "keyhaul-ckms"), Code.INVALID_ARGUMENT),
        (proto("/carrier/links[neighbour=ckms-8]"), Code.INVALID_ARGUMENT),
        (proto("/carrier/links/link[name=ckms-8]"), Code.INVALID_ARGUMENT),
        (proto("/carrier/links/link[neighbour=akms-8]"), Code.INVALID_ARGUMENT),
        (proto("/carrier/forwarding/statement[serial=-1]"), Code.INVALID_ARGUMENT),
        (proto("/carrier/forwarding/statement[serial=99999999999999999999]"), Code.INVALID_ARGUMENT),
        (gnmi_pb2.Path(elem=[gnmi_pb2.PathElem(name="")]), Code.INVALID_ARGUMENT),
        (gnmi_pb2.Path(elem=[gnmi_pb2.PathElem(name="carrier")] * 33), Code.INVALID_ARGUMENT),
        (gnmi_pb2.Path(element=["carrier"]), Code.UNIMPLEMENTED),
        (proto("/carrier", target="node-9"), Code.INVALID_ARGUMENT),
        (proto("/.../.../bytes"), Code.UNIMPLEMENTED),
    ],
)
def test_errors_are_the_specifications(path: Any, code: Code) -> None:
    assert refused(path) is code


def test_an_origin_stands_once() -> None:
    assert refused(proto("/links", "keyhaul-ckms"), proto("/carrier", "keyhaul-ckms")) is Code.INVALID_ARGUMENT


@given(
    st.lists(
        st.builds(
            Step,
            st.text("abc:-_", min_size=1),
            st.dictionaries(st.text("xyz-", min_size=1, max_size=4), st.text(max_size=8), max_size=3).map(
                lambda keys: tuple(sorted(keys.items()))
            ),
        ),
        max_size=5,
    ).map(tuple)
)
def test_text_and_messages_keep_a_path(path: paths.Path) -> None:
    assert parse(text(path)) == path
    assert paths.from_proto(to_proto(path)) == path


@pytest.mark.parametrize("broken", ["/a[b", "/a[=c]", "/a[b=c]d", "/a//b", "/[b=c]", "/a[b=c\\]"])
def test_broken_text_is_refused(broken: str) -> None:
    with pytest.raises(ValueError):
        parse(broken)


def test_a_step_with_keys_is_written_briefly() -> None:
    assert text((step("path", service_class="gold", rank="0"),)) == "/path[rank=0][service-class=gold]"
