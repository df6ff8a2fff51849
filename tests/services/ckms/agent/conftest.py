"""Makes sure that `keyhaul.agents.gnmi` is imported before pygnmi imports gRPC, and chooses its TLS."""

from __future__ import annotations

import keyhaul.agents.gnmi

assert keyhaul.agents.gnmi.TLS_1_2_REFUSED
