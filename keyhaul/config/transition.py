"""From the configurations that a network's services have to those that they shall have, in steps that each may be the
last: whatever a service does between two of them, a batch on its way finds what it needs.

First all that is new is there: nodes, links, entries. Then paths change. Then goes what is not used any more. What a
configuration says beside links, modules, paths and entries stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from keyhaul.config.plan import Service
from keyhaul.config.services import CkmsConfig, LinkSection, QkdmConfig, ServiceConfig

Config = TypeVar("Config", CkmsConfig, QkdmConfig)

Configs = dict[str, ServiceConfig]
"""By service id."""


@dataclass(frozen=True, slots=True)
class Transition:
    """What to write, step by step."""

    joined: Configs = field(default_factory=dict)
    """All that there was, and all that is new."""
    switched: Configs = field(default_factory=dict)
    """The same, with the new paths."""
    left: Configs = field(default_factory=dict)
    """What there shall be."""


def transition(present: Mapping[str, ServiceConfig], target: Iterable[Service]) -> Transition:
    """Return the steps for those services of `target` whose configuration changes, or that are new."""
    steps = Transition()
    for service in target:
        name, wanted = service.name.id, service.config
        match present.get(name), wanted:
            case None, _:
                for step in (steps.joined, steps.switched, steps.left):
                    step[name] = wanted
            case CkmsConfig() as before, CkmsConfig():
                _carrier(steps, name, before, wanted)
            case QkdmConfig() as before, QkdmConfig():
                kept = {one.link: one for one in before.module}
                shall = [kept.get(one.link, one) for one in wanted.module]
                names = {one.link for one in shall}
                both = shall + [one for one in before.module if one.link not in names]
                steps.joined[name] = steps.switched[name] = msgspec.structs.replace(before, module=both)
                steps.left[name] = msgspec.structs.replace(before, module=shall)
    return steps


def _carrier(steps: Transition, name: str, before: CkmsConfig, wanted: CkmsConfig) -> None:
    kept = {link.id: link for link in before.link}
    shall = [_link(kept.get(link.id), link, link.enabled) for link in wanted.link]
    names = {link.id for link in shall}
    both = [_link(kept.get(link.id), link, link.enabled or _enabled(kept.get(link.id))) for link in wanted.link]
    both += [link for link in before.link if link.id not in names]
    entries = {(entry.label, entry.previous): entry for entry in (*before.entry, *wanted.entry)}
    joined = msgspec.structs.replace(before, link=both, entry=list(entries.values()))
    steps.joined[name] = joined
    steps.switched[name] = msgspec.structs.replace(joined, path=wanted.path)
    steps.left[name] = msgspec.structs.replace(before, link=shall, entry=wanted.entry, path=wanted.path)


def _link(before: LinkSection | None, wanted: LinkSection, enabled: bool) -> LinkSection:
    return msgspec.structs.replace(before or wanted, enabled=enabled)


def _enabled(link: LinkSection | None) -> bool:
    return link is not None and link.enabled
