"""Where a batch that came in goes from here: to its next hop, or around a link that is down.

Sans-IO. A detour is for what comes in while the sending node does not know of the failure yet; it has an entry, with
labels of its own, at every hop to the end, so that nothing comes back to where it was.
"""

from __future__ import annotations

from services.ckms.choice import Ready
from services.ckms.forwarding import Entry, Hop


def onward(entry: Entry, ready: Ready) -> Hop | None:
    """Return where what comes under an entry is sent; None: it is delivered here.

    The detour is taken only while the link to the next hop is down and that to the detour is up. Where both are down,
    the next hop it is: the failure is told of the way that was planned.
    """
    if entry.next is None or entry.detour is None:
        return entry.next
    around = not ready(entry.next.neighbour, 0) and ready(entry.detour.neighbour, 0)
    return entry.detour if around else entry.next
