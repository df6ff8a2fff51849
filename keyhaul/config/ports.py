"""The ports of a laid-out network: the same on every node, each node having an address of its own."""

from __future__ import annotations

from keyhaul.identity.names import Role

PORTS = {Role.CKMS: 7443, Role.AKMS: 7444, Role.AAA: 7445, Role.CONTROLLER: 7446, Role.UKMS: 8443}
"""Where other services reach a role; at a UKMS, where SAEs do."""

FIRST_MODULE_PORT = 8014
"""Of a node's first QKD module; the others follow."""

GNMI_PORT = 9339
"""Of a CKMS's agent: the one registered for gNMI."""

METRICS_PORTS = {
    Role.CKMS: 9443,
    Role.AKMS: 9444,
    Role.AAA: 9445,
    Role.UKMS: 9446,
    Role.QKDM: 9447,
    Role.CONTROLLER: 9448,
}
