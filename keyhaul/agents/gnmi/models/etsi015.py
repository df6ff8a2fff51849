"""Schema of what is served of ETSI GS QKD 015 V2.1.1's module `etsi-qkd-sdn-node`: all but notifications.

A CKMS names none but INTERNAL applications (its relaying); client and server application ids are not in this schema, so
that no SAE can ever be told.
"""

from __future__ import annotations

from keyhaul.agents.gnmi.schema import Module, container, leaf, leaf_list, list_of
from keyhaul.agents.gnmi.types import BOOLEAN, STRING, UINT32, UUID, Decimal64, Text, identity

NAME = "etsi-qkd-sdn-node"
TOP = f"{NAME}:qkd_node"

_TYPES = "etsi-qkd-node-types"
_DATE_AND_TIME = Text(40, r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+\-]\d{2}:\d{2})")
_CHANNEL = "[1-9][0-9]{0,3}"
_CHANNELS = f"{_CHANNEL}(-{_CHANNEL})?"
_ROLE = identity(_TYPES, "TRANSMITTER", "RECEIVER", "TRANSCEIVER")
_TECHNOLOGY = identity(_TYPES, "CV-QKD", "DV-QKD", "DV-QKD-COW", "DV-QKD-2Ws")

_APPLICATION = list_of(
    "qkd_app",
    ["app_id"],
    leaf("app_id", UUID),
    leaf("app_status", identity(_TYPES, "ON", "DISCONNECTED", "OUT-OF-TIME", "ZOMBIE"), config=False),
    leaf("app_type", identity(_TYPES, "INTERNAL")),
    leaf("app_priority", UINT32),
    leaf("creation_time", _DATE_AND_TIME, config=False),
    leaf("expiration_time", _DATE_AND_TIME),
    container(
        "app_statistics",
        list_of(
            "statistics",
            ["end_time"],
            leaf("end_time", _DATE_AND_TIME),
            leaf("start_time", _DATE_AND_TIME),
            leaf("consumed_bits", UINT32),
            config=False,
        ),
    ),
    container(
        "app_qos",
        leaf("max_bandwidth", UINT32),
        leaf("min_bandwidth", UINT32),
        leaf("jitter", UINT32),
        leaf("ttl", UINT32),
        leaf("clients_shared_path_enable", BOOLEAN),
        leaf("clients_shared_keys_required", BOOLEAN),
    ),
    leaf_list("backing_qkdl_id", UUID),
    leaf("local_qkdn_id", UUID),
    leaf("remote_qkdn_id", UUID),
    unit=True,
)

_INTERFACE = list_of(
    "qkd_interface",
    ["qkdi_id"],
    leaf("qkdi_id", UINT32),
    leaf("qkdi_model", STRING),
    leaf("qkdi_type", _TECHNOLOGY),
    container("qkdi_att_point", leaf("device", STRING), leaf("port", UINT32)),
    container(
        "qkdi_capabilities",
        leaf("role_support", _ROLE),
        leaf(
            "wavelength_range", Text(255, r"[1-9][0-9]{0,3}(-[1-9][0-9]{0,3})?(,[1-9][0-9]{0,3}(-[1-9][0-9]{0,3})?)*")
        ),
        leaf("max_absorption", Decimal64(3)),
    ),
    leaf("qkdi_status", identity(_TYPES, "ENABLED", "DISABLED", "FAILED"), config=False),
    unit=True,
)

_END = (leaf("qkdn_id", UUID), leaf("qkdi_id", UINT32))

_LINK = list_of(
    "qkd_link",
    ["qkdl_id"],
    leaf("qkdl_id", UUID),
    leaf("qkdl_status", identity(_TYPES, "ACTIVE", "PASSIVE", "PENDING", "OFF")),
    leaf("qkdl_enable", BOOLEAN),
    container("qkdl_local", *_END),
    container("qkdl_remote", *_END),
    leaf("qkdl_type", identity(_TYPES, "VIRT", "PHYS")),
    leaf_list("qkdl_applications", UUID),
    leaf("virt_prev_hop", UUID),
    leaf_list("virt_next_hop", UUID),
    leaf("virt_bandwidth", UINT32),
    leaf("phys_channel_att", Decimal64(3)),
    leaf("phys_wavelength", Text(4, _CHANNEL)),
    leaf("phys_qkd_role", _ROLE),
    container(
        "qkdl_performance",
        leaf("expected_consumption", UINT32, config=False),
        leaf("skr", UINT32, config=False),
        leaf("eskr", UINT32, config=False),
        list_of(
            "phys_perf",
            ["perf_type"],
            leaf("perf_type", identity(_TYPES, "QBER", "SNR")),
            leaf("value", Decimal64(3)),
            config=False,
        ),
        unit=True,
        sampled=True,
    ),
    unit=True,
)

NODE = container(
    "qkd_node",
    leaf("qkdn_id", UUID),
    leaf("qkdn_status", identity(_TYPES, "NEW", "OPERATING", "DOWN", "FAILURE", "OUT"), config=False),
    leaf("qkdn_version", STRING),
    leaf("qkdn_location_id", STRING),
    container(
        "qkdn_capabilities",
        leaf("link_stats_support", BOOLEAN),
        leaf("application_stats_support", BOOLEAN),
        leaf("key_relay_mode_enable", BOOLEAN),
    ),
    container("qkd_applications", _APPLICATION),
    container("qkd_interfaces", _INTERFACE),
    container("qkd_links", _LINK),
)

MODULE = Module(NAME, "ETSI ISG QKD", "2022-01-30", "urn:etsi:qkd:yang:etsi-qkd-node", (NODE,))
