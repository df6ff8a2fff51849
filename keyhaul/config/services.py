"""The configuration file of each role, as types. One service, one file, one process.

Paths are relative to the file they stand in. Times are seconds, sizes say bits or bytes.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

SuiteName = Literal["otp", "aes-256-gcm"]
ServiceClass = Literal["gold", "silver", "bronze"]
"""Of static paths: class split has none."""

ContractClass = Literal["gold", "silver", "bronze", "split"]


class ServiceSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[service]: who this is."""

    domain: str
    role: str
    node: str


class IdentitySection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[identity]: this service's certificates and keys, and whom it trusts. Renewed files are picked up."""

    certificate: str
    """PEM chain: the ML-DSA-65 certificate, then its per-role intermediate."""
    key: str
    trust: str
    """PEM: the operator's root (ML-DSA-65)."""
    crl: str | None = None
    """PEM: revocation lists of the operator's authorities, one after the other."""
    classic_certificate: str | None = None
    """PEM chain: the P-256 certificate of the same name, for peers that know nothing else."""
    classic_key: str | None = None
    link_key: str | None = None
    """PEM: this KMS's ML-DSA-65 link key."""


class ListenSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[listen]: the HTTP/2 address for other services, e.g. ``127.16.0.8:7443``."""

    address: str


class OperationsSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[operations]: how this service is watched: metrics and health over loopback HTTP, commands over a socket."""

    metrics: str
    """Address, e.g. ``127.16.0.8:9443``; must be a loopback address."""
    socket: str
    """Path of the local Unix socket (made 0600)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"


class StoreSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[store]: where durable state is and how its key is sealed."""

    path: str
    sealer: Literal["key-file", "passphrase"] = "key-file"
    key_file: str | None = None
    """key-file: 64 hexadecimal digits, mode 0600; made at first start where missing."""
    passphrase_source: Literal["prompt", "file", "credential"] = "file"  # noqa: S105
    passphrase_file: str | None = None
    passphrase_credential: str = "store-passphrase"  # noqa: S105 - the credential's name, not its value


class ModuleSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[link]] module: the QKD module of this end, reached over ETSI GS QKD 014."""

    url: str
    """E.g. ``https://127.16.0.8:8014``."""
    trust: str
    """PEM: the authority of the modules' certificates."""
    kme: str
    """The module's KME ID, checked against its certificate's common name."""
    sae: str
    """This KMS's SAE ID at the module: its classic certificate's common name."""
    peer_sae: str
    """The other end's SAE ID at its module."""


LINK_POOL = 65_536
"""Bytes of payload pad that an end of a link keeps per direction where nobody says otherwise."""


LINK_RESERVE = 2_048
"""Bytes of control pad, likewise."""


class LinkSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[link]]: one link of this KMS."""

    id: str
    neighbour: str
    """Service id at the other end, e.g. ``ckms-9``."""
    address: str | None = None
    """The neighbour's HTTP/2 address; absent at an AKMS for its UKMSs, which dial in."""
    initiator: bool
    """Whether this end establishes sessions; exactly one end does."""
    peer_link_key: str
    """PEM: the neighbour's pinned ML-DSA-65 link public key."""
    bootstrap: str | None = None
    """File of the link's bootstrap secret (32 bytes or more, hexadecimal), mixed into the first control reserve."""
    suites: list[SuiteName]
    """Protections this end accepts, best first."""
    floor: SuiteName
    """The weakest protection this end ever agrees to (`otp` is stronger than `aes-256-gcm`)."""
    enabled: bool = True
    """Whether anything may cross the link (ETSI GS QKD 015, qkdl_enable). What `keyhaul link disable` says counts
    besides."""
    rate: int = 2000
    """Expected key rate in bits per second: leases are about two seconds of it."""
    pool: int = LINK_POOL
    """Payload pad to keep per direction, bytes."""
    reserve: int = LINK_RESERVE
    """Control pad to keep per direction, bytes."""
    rotate_messages: int = 1_000_000
    rotate_bytes: int = 1_073_741_824
    rotate_seconds: float = 3600.0
    module: ModuleSection


class PeerSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """A service that this one dials."""

    service: str
    """Service id, e.g. ``akms-14``."""
    address: str


CARRIER_RATE = 8_388_608
"""Bytes of CN key a second that a path may carry where nobody says otherwise; as many at once."""


class ForwardingEntry(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[entry]]: what to do with a label. Labels are 16 hexadecimal digits, different on every hop."""

    label: str
    """Label by which a batch comes in over `previous`."""
    previous: str
    """Service id of the neighbour that may use this label."""
    next: str | None = None
    """Service id of the next hop; absent: deliver to the AKMS of this node."""
    next_label: str | None = None
    service_class: ServiceClass | None = None
    """The class of what the path carries; absent: any."""
    rate: float = CARRIER_RATE
    """Bytes of CN key a second; what comes on top is refused."""
    burst: int = CARRIER_RATE
    """Bytes at once; a batch that is greater passes a full bucket."""


class PathSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[path]]: where a path that starts here goes; several for one destination are taken in the order of rank."""

    destination: str
    """Service id of the CKMS at its end."""
    rank: int
    """0: first choice; 1: the detour."""
    next: str
    label: str
    service_class: ServiceClass | None = None
    """For batches of this class; absent: of all that have no path of their own."""
    rate: float = CARRIER_RATE
    """Bytes of CN key a second; what comes on top is refused."""
    burst: int = CARRIER_RATE
    """Bytes at once; a batch that is greater passes a full bucket."""


class ControllerServerSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[controller.server]]: one of the controllers, of which one leads."""

    service: str
    """Service id, e.g. ``controller-1``."""
    address: str
    """Its HTTP/2 address, for path requests."""
    statement_key: str
    """PEM: its pinned ML-DSA-65 statement key."""


HARD_LIMIT = 604_800.0
"""Seconds: a week."""


class ControllerSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[controller]: who may steer this CKMS; absent: only its own configuration does."""

    server: list[ControllerServerSection]
    hard_limit: float = HARD_LIMIT
    """Seconds after which nothing that a controller said is used any more, though none can be reached."""


class GnmiSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[gnmi]: this CKMS's agent: telemetry for the controllers, and their statements. It shows the certificate that
    [identity] has as `classic_certificate`: gRPC's TLS knows no ML-DSA."""

    address: str
    """E.g. ``127.16.0.8:9339``."""
    trust: str
    """PEM: the authority of the controllers' P-256 certificates."""
    crl: str | None = None
    """PEM: its revocation list."""


class CkmsConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """A carrier KMS."""

    service: ServiceSection
    identity: IdentitySection
    listen: ListenSection
    operations: OperationsSection
    store: StoreSection
    link: list[LinkSection]
    akms: PeerSection | None = None
    """The AKMS of this node, at access nodes."""
    controller: ControllerSection | None = None
    gnmi: GnmiSection | None = None
    """Absent: no controller sees this CKMS."""
    path: list[PathSection] = []
    entry: list[ForwardingEntry] = []


class PoolSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[pool]: CN keys kept ahead of demand, per peer AKMS and class; bytes of CN key."""

    minimum: int = 4_096
    maximum: int = 131_072
    horizon: float = 4.0
    """Keep this many seconds of the demand seen of late, between minimum and maximum."""
    batches: list[int] = field(default_factory=lambda: [512, 1_024, 2_048, 4_096, 32_768])
    """The few fixed sizes of relayed batches, bytes of CN key."""


class AkmsConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """An access KMS."""

    service: ServiceSection
    identity: IdentitySection
    listen: ListenSection
    operations: OperationsSection
    store: StoreSection
    link: list[LinkSection] = []
    """Access links; the UKMSs dial."""
    ckms: PeerSection
    aaa: PeerSection
    aaa_key: str
    """PEM: AAA's pinned ML-DSA-65 grant key."""
    peer: list[PeerSection] = []
    """Other AKMSs."""
    pool: PoolSection = field(default_factory=PoolSection)
    key_lifetime: float = 86_400.0
    """Of slave copies; master copies end `guard` earlier."""
    guard: float = 600.0
    requests_per_peer: int = 256
    """Credits: requests under way with one peer, in each direction."""


class BufferSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[buffer]: keys fetched ahead of demand, per master, set of slaves and size."""

    minimum: int = 0
    """Keys kept once a user has asked; 0 with maximum 0 turns prefetch off."""
    maximum: int = 4_096
    horizon: float = 4.0


class UserListenSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[sae]: ETSI GS QKD 014 for the site's SAEs."""

    address: str
    kme: str
    """This UKMS's KME ID: the common name of the certificate that SAEs see."""
    certificate: str
    key: str
    trust: str
    """PEM: the authority of SAE certificates."""
    crl: str | None = None
    minimum_tls: Literal["1.2", "1.3"] = "1.3"
    maximum_connections: int = 1024


class UkmsConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """A user KMS."""

    service: ServiceSection
    identity: IdentitySection
    operations: OperationsSection
    store: StoreSection
    link: LinkSection
    akms: PeerSection
    sae: UserListenSection
    buffer: BufferSection = field(default_factory=BufferSection)
    request_timeout: float = 10.0
    """How long an SAE's request may wait for keys before it is answered 503."""


class ModuleConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[module]]: one simulated QKD module of a node."""

    link: str
    address: str
    """ETSI GS QKD 014 for the KMS."""
    kme: str
    peer_kme: str
    sae: str
    """The only SAE that it serves: the KMS at this end."""
    peer_sae: str
    certificate: str
    key: str
    trust: str
    """PEM: the authority of the KMSs' P-256 certificates."""
    channel: str
    """The simulated quantum and sifting channel: path of a Unix socket shared by the two ends."""
    transmitter: bool
    """The transmitter makes the bits and listens on the channel."""
    rate: float
    """Secret key rate, bits per second."""
    rate_deviation: float = 0.0
    """Standard deviation of the rate, bits per second."""
    qber: float = 0.02
    """Quantum bit error ratio, 0 to 1."""
    qber_deviation: float = 0.0
    block: int = 4_096
    """Bits that one burst distils."""
    key_size: int = 256
    """Bits."""
    stock: float = 60.0
    """Seconds of the rate that are in store at start."""
    capacity: int = 65_536
    """Keys that the store holds; the oldest drop out."""
    fixed_rate: bool = False
    """Even key by key instead of bursts."""


class QkdmConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """The simulated QKD modules of one node."""

    service: ServiceSection
    operations: OperationsSection
    module: list[ModuleConfig]


class AaaConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """The AAA service."""

    service: ServiceSection
    identity: IdentitySection
    listen: ListenSection
    operations: OperationsSection
    database: str
    """SQLAlchemy URL, e.g. ``sqlite:///aaa.db`` (relative to this file)."""
    grant_key: str
    """PEM: the ML-DSA-65 key that signs grants."""
    grant_lifetime: float = 86_400.0
    grant_allowance: int = 100_000
    """Keys per grant, less where the quota leaves less."""
    epoch: float = 3_600.0
    """Seconds per epoch."""
    keep_days: int = 400
    """Days for which usage records with their key IDs, grants and revocations are kept; sums per day stay."""


class AgentsSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[gnmi]: how the controller meets the CKMSs' agents, whose addresses the plan has. It shows the certificate that
    [identity] has as `classic_certificate`: gRPC's TLS knows no ML-DSA."""

    trust: str
    """PEM: the authority of the CKMSs' P-256 certificates."""


class ControllerConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """A QKDN controller."""

    service: ServiceSection
    identity: IdentitySection
    listen: ListenSection
    """For path requests of CKMSs, and for operators' tools."""
    operations: OperationsSection
    gnmi: AgentsSection
    database: str
    """SQLAlchemy URL, e.g. ``sqlite:///controller.db`` (relative to this file) for a single controller; two or more
    share a PostgreSQL database."""
    statement_key: str
    """PEM: the ML-DSA-65 key that signs forwarding statements; CKMSs pin its public half."""
    plan: str
    """JSON: the planned network, as `keyhaul network plan` writes it (`keyhaul.config.carrier`)."""
    policy: Literal["hops", "widest-shortest", "residual"] = "residual"
    """How to choose among the paths that may be taken."""


ServiceConfig = UkmsConfig | AkmsConfig | CkmsConfig | AaaConfig | QkdmConfig | ControllerConfig
"""What some role's file says."""
