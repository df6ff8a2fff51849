"""Get (gNMI section 3.3): a snapshot of what is at some paths."""

from __future__ import annotations

from typing import Any

from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import data, paths, values
from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.schema import Schema

MAXIMUM_PATHS = 64

_KINDS = {gnmi_pb2.GetRequest.CONFIG: True, gnmi_pb2.GetRequest.STATE: False, gnmi_pb2.GetRequest.OPERATIONAL: False}


def answer(schema: Schema, snapshot: Any, request: Any, now: int) -> Any:
    """Answer a GetRequest: one Notification for each path, in their order.

    OPERATIONAL is answered as STATE: nothing here is intended configuration that could differ from what is applied.

    Args:
        schema: what there can be.
        snapshot: what there is.
        request: the GetRequest.
        now: nanoseconds since 1970.

    Raises:
        Refused: as the specification says; NOT_FOUND where a path without wildcards has no data.
    """
    ietf = values.encoding(request.encoding) == values.JSON_IETF
    if len(request.path) > MAXIMUM_PATHS:
        raise Refused(Code.RESOURCE_EXHAUSTED, f"at most {MAXIMUM_PATHS} paths in a Get")
    models(schema, request.use_models)
    prefix = request.prefix if request.HasField("prefix") else None
    response = gnmi_pb2.GetResponse()
    for path in request.path:
        asked = paths.resolve(schema, path, prefix)
        notification = response.notification.add(timestamp=now)
        if prefix is not None and prefix.target:
            notification.prefix.target = prefix.target
        found = [each for pattern in asked.patterns for each in data.matching(schema.root, snapshot, pattern)]
        if asked.exact and not found:
            raise Refused(Code.NOT_FOUND, f"nothing at {paths.text(paths.from_proto(path))[:200]}")
        for place, node, value in found:
            if request.type in _KINDS:
                value = data.only(node, value, config=_KINDS[request.type])
            if value is not None:
                encoded = values.encoded(place, node, value, ietf=ietf)
                notification.update.add(
                    path=paths.to_proto(place, asked.origin), val=values.typed(encoded, request.encoding)
                )
    return response


def capabilities(schema: Schema, version: str) -> Any:
    """Answer a CapabilityRequest."""
    response = gnmi_pb2.CapabilityResponse(supported_encodings=values.ENCODINGS, gNMI_version=version)
    for module in schema.modules:
        response.supported_models.add(name=module.name, organization=module.organization, version=module.revision)
    return response


def models(schema: Schema, wanted: Any) -> None:
    """Check the models that a client wants to have used (`use_models`); more than wanted are used all the same.

    Raises:
        Refused: UNIMPLEMENTED for one that there is not.
    """
    for model in wanted:
        if not any(model.name == module.name and model.version in ("", module.revision) for module in schema.modules):
            raise Refused(Code.UNIMPLEMENTED, f"this target has no model {model.name[:64]!r} {model.version[:32]!r}")
