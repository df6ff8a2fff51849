"""How commands put figures, paths and refusals for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyhaul.transport.messages import network

PREFIX = "ckms-"


def ckms(name: str) -> str:
    """A CKMS's service id, from that or from its node's name."""
    return name if name.startswith(PREFIX) else PREFIX + name


def node(identity: str) -> str:
    """A node's name, from its CKMS's id."""
    return identity.removeprefix(PREFIX)


def route(nodes: Iterable[str]) -> str:
    """The nodes of a path."""
    return " > ".join(map(node, nodes))


def compact(nodes: Sequence[str], room: int) -> str:
    """The nodes of a path in so many characters, if need be without some in the middle."""
    names = [node(one) for one in nodes]
    text = ">".join(names)
    while len(text) > room and len(names) > 2:
        del names[len(names) // 2]
        middle = (len(names) + 1) // 2
        text = ">".join([*names[:middle], "…", *names[middle:]])
    return text


def figure(value: float, unit: str = "") -> str:
    """A number in few digits, with a decimal prefix."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5 or prefix == "T":
            break
        value /= 1000
    digits = f"{value:.0f}" if (prefix == "" and value == int(value)) or abs(value) >= 99.5 else f"{value:.3g}"
    return f"{digits} {prefix}{unit}".rstrip()


def both(first: float, second: float) -> str:
    """Figures of both directions; one where they are shown the same."""
    one, other = figure(first), figure(second)
    return one if one == other else f"{one} / {other}"


def share(part: float, whole: float) -> str:
    """A percentage."""
    return "-" if not whole else f"{100 * part / whole:.0f}%"


def shares(directions: Sequence[network.DirectionFacts]) -> str:
    """How full the pools of both directions are."""
    found = [share(one.pool, one.capacity) for one in directions]
    return found[0] if len(set(found)) == 1 else " / ".join(found)


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    left = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def state(link: network.LinkFacts) -> str:
    """A link's state: what matters most of it."""
    if link.state != "found":
        return link.state if link.up else f"{link.state}, down" if link.state == "disagreeing" else link.state
    return "up" if link.up else "down"


def refusal(refused: network.RefusalFacts) -> str:
    """Why a demand is not served, and when it might be."""
    text = refused.reason
    if refused.paths_found is not None:
        text += f" ({refused.paths_found} found)"
    if refused.earliest_s is not None:
        text += f"; at the earliest in {span(refused.earliest_s)}"
    return text


def is_served(demand: network.DemandFacts) -> bool:
    """Whether paths carry a demand."""
    return any(way.state == "installed" and not way.down for way in demand.paths)


def is_broken(path: network.PathFacts) -> bool:
    """Whether a path that should carry a demand does not."""
    return path.state == "installed" and bool(path.down)


def held_for(path: network.PathFacts, demand: network.DemandFacts) -> str:
    """For how long a demand has had a path."""
    return span(demand.since_s) if path.state == "installed" else ""


def use(path: network.PathFacts, service_class: str) -> str:
    """What a path is for its demand."""
    if service_class == "split":
        return f"share {path.rank + 1}"
    return "primary" if path.rank == 0 else "backup" if path.rank == 1 else f"backup {path.rank}"


def plural(count: int, what: str) -> str:
    """So many of them."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def head(name: str, status: network.Status) -> str:
    """The network and its controller in a line or two."""
    if status.leads:
        leads = f"{name} leads in epoch {status.epoch} for {span(status.led_s)}"
    else:
        known = status.leader if status.database else ""
        leads = f"{name} stands by, " + (f"{known} leads" if known else "nobody is known to lead")
    parts = [
        leads,
        f"plan {status.plan}",
        plural(status.nodes, "node") + (f" ({len(status.silent)} silent)" if status.silent else ""),
        f"{status.links_up} of {plural(status.links, 'link')} up",
    ]
    if status.leads:
        unserved = f" ({status.unserved} without a path)" if status.unserved else ""
        parts.append(plural(status.demands, "demand") + unserved)
    if not status.database:
        parts.append("the database does not answer")
    if status.disagreements:
        parts.append(plural(status.disagreements, "disagreement"))
    if status.quarantined:
        parts.append(f"quarantined: {', '.join(map(node, sorted(status.quarantined)))}")
    return ", ".join(parts)
