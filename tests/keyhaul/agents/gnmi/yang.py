"""The YANG modules of `proto` and of ETSI as yangson reads them, to hold live data to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from yangson import DataModel
from yangson.enumerations import ContentType, ValidationScope

from keyhaul.agents.gnmi.models import ckms, etsi015

ROOT = Path(__file__).parents[4]
PROTO = ROOT / "proto"
SHARED = ROOT.parent / "shared" / "yang"

with_etsi = pytest.mark.skipif(
    not (SHARED / "etsi-qkd-sdn-node.yang").is_file(),
    reason="ETSI's YANG files are not beside the project (../shared/yang)",
)


def library(*modules: tuple[str, str, str, str]) -> str:
    """The YANG library (RFC 7895) of modules: name, revision, namespace, conformance."""
    return json.dumps(
        {
            "ietf-yang-library:modules-state": {
                "module-set-id": "tests",
                "module": [
                    {"name": name, "revision": revision, "namespace": namespace, "conformance-type": conformance}
                    for name, revision, namespace, conformance in modules
                ],
            }
        }
    )


def own_model() -> DataModel:
    own = ckms.MODULE
    return DataModel(library((own.name, own.revision, own.namespace, "implement")), (str(PROTO),))


def both_models() -> DataModel:
    own, etsi = ckms.MODULE, etsi015.MODULE
    return DataModel(
        library(
            (own.name, own.revision, own.namespace, "implement"),
            (etsi.name, etsi.revision, etsi.namespace, "implement"),
            _beside("etsi-qkd-node-types", "urn:etsi:qkd:yang", "implement"),
            _beside("ietf-yang-types", "urn:ietf:params:xml:ns:yang", "import"),
            _beside("ietf-inet-types", "urn:ietf:params:xml:ns:yang", "import"),
        ),
        (str(PROTO), str(SHARED)),
    )


def validate(model: DataModel, encoded: bytes) -> None:
    model.from_raw(json.loads(encoded)).validate(ValidationScope.all, ContentType.all)


def _beside(name: str, namespaces: str, conformance: str) -> tuple[str, str, str, str]:
    for line in (SHARED / f"{name}.yang").read_text().splitlines():
        words = line.replace('"', " ").split()
        if words[:1] == ["revision"]:
            return name, words[1], f"{namespaces}:{name}", conformance
    raise AssertionError(f"{name} has no revision")
