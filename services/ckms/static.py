"""What the configuration says of forwarding, as rows of the table."""

from __future__ import annotations

from keyhaul.config.services import CkmsConfig, ForwardingEntry, PathSection
from keyhaul.runtime.interface import StartError
from services.ckms.forwarding import Entry, ForwardingTable, Hop, InvalidForwarding, Path, PathLabel
from services.ckms.policing import Limit


def configure(table: ForwardingTable, config: CkmsConfig) -> None:
    """Put a configuration's neighbours, entries and paths in the place of the former ones, whole.

    Raises:
        StartError: there are errors in them; nothing has changed.
    """
    if config.path and config.akms is None:
        raise StartError("paths start only where an AKMS is: give the table [akms], or take out [[path]]")
    neighbours = [link.neighbour for link in config.link]
    try:
        table.configure(neighbours, [_entry(one) for one in config.entry], [_path(one) for one in config.path])
    except InvalidForwarding as error:
        raise StartError("the forwarding table has errors:\n" + "\n".join(error.errors)) from None


def _entry(section: ForwardingEntry) -> Entry:
    if (section.next is None) != (section.next_label is None):
        raise StartError(f"entry {section.label} from {section.previous}: next and next_label belong together")
    onward = None
    if section.next is not None and section.next_label is not None:
        onward = Hop(section.next, PathLabel(section.next_label))
    limit = Limit(section.rate, section.burst)
    return Entry(PathLabel(section.label), section.previous, onward, section.service_class, limit)


def _path(section: PathSection) -> Path:
    first = Hop(section.next, PathLabel(section.label))
    limit = Limit(section.rate, section.burst)
    return Path(section.destination, section.rank, first, section.service_class, limit)
