"""What the agent tells of."""

from __future__ import annotations

from dataclasses import dataclass

from keyhaul.config.services import LinkSection
from keyhaul.link.interface import LinkCalls
from keyhaul.transport.channel import Channel
from keyhaul.transport.etsi014 import Client014
from services.ckms.forwarding import ForwardingTable
from services.ckms.relay import Relay
from services.ckms.steering import Steering


@dataclass(frozen=True, slots=True)
class AgentLink:
    """One link with all that is told of it."""

    section: LinkSection
    link: LinkCalls
    module: Client014
    channel: Channel


@dataclass(frozen=True, slots=True)
class Parts:
    """What is told of, beside the links."""

    relay: Relay
    table: ForwardingTable
    steering: Steering | None
    """None: nobody steers this CKMS, and nothing can be set."""
