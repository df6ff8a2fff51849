"""What `keyhaul link` says to people of a link's ends and of its modules: named, and in units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhaul.command.output import size

Facts = list[tuple[str, str]]
"""What is told, and its value."""


def state_of(end: Mapping[str, Any]) -> str:
    """The state of one end: an operator's or a fault's first, then whether the neighbour is there at all."""
    state = str(end["state"])
    if state in ("disabled", "cut") or end["connected"]:
        return state
    return "away"


def describe_end(end: Mapping[str, Any]) -> Facts:
    """One end, as its KMS sees the link."""
    out, back = end["outgoing"], end["incoming"]
    return [
        ("neighbour", f"{end['neighbour']}, {'connected' if end['connected'] else 'not connected'}"),
        ("state", state_of(end)),
        ("protection", end["suite"] or "none, as no session stands"),
        ("accepted, best first", _accepted(end)),
        ("weakest accepted", end["floor"]),
        ("sessions", f"{end['sessions_total']} since the start"),
        ("messages refused", f"{end['rejected_total']} since the start"),
        ("pad for payload", _both(out, back, "payload_available")),
        ("pad for control", _both(out, back, "control_available")),
        ("blocks of pad", f"{out['blocks']} out, {back['blocks']} in"),
        ("pad used", f"{_both(out, back, 'used_total')}, since the start"),
        ("pad burned", f"{_both(out, back, 'burned_total')}, since the start"),
    ]


def describe_module(module: Mapping[str, Any]) -> Facts:
    """One simulated QKD module of the link; its counters are since its start."""
    stored, capacity, delivered = module["stored"], module["capacity"], module["delivered"]
    return [
        ("KME", f"{module['kme']}, paired with {module['peer_kme']}"),
        ("end of the link", "transmitter" if module["transmitter"] else "receiver"),
        ("fibre", "cut" if module["cut"] else "whole"),
        ("in step with its pair", "yes" if module["synchronised"] else "no"),
        ("key rate", f"{module['rate']:g} bit/s"),
        ("quantum bit error ratio", f"{100 * module['qber']:.2f} %"),
        ("keys stored (enc_keys)", f"{stored['enc_keys']} of at most {capacity['enc_keys']}"),
        ("keys stored (dec_keys)", f"{stored['dec_keys']} of at most {capacity['dec_keys']}"),
        ("keys generated", str(module["generated"])),
        ("keys delivered", f"{delivered['enc_keys']} by enc_keys, {delivered['dec_keys']} by dec_keys"),
        ("requests refused", f"{module['refused']}, as there were too few keys"),
        ("keys dropped", ", ".join(f"{count} {_DROPPED[why]}" for why, count in module["dropped"].items())),
    ]


_DROPPED = {
    "overflow": "as the oldest of a full store",
    "unsynchronised": "that its pair cannot have",
    "lost": "while its pair did not answer",
}


def _accepted(end: Mapping[str, Any]) -> str:
    suites = ", ".join(end["suites"])
    return f"{suites} (set at run time; configured: {', '.join(end['configured'])})" if end["chosen"] else suites


def _both(out: Mapping[str, Any], back: Mapping[str, Any], name: str) -> str:
    return f"{size(out[name])} out, {size(back[name])} in"
