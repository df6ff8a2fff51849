"""gNMI at both ends (OpenConfig gNMI 0.8.0 as pygnmi's stubs have it), generic over a tree of typed data.

The cores know neither sockets nor clocks: `paths`, `types`, `schema`, `data`, `values` and `changes` say what a tree is
and how it looks on the wire, `getting`, `setting`, `subscribing` and `session` what the RPCs do with it. `target` and
`client` put them on grpc.aio, `tls` and `peers` decide who may talk. `tree` is what a service fills, `models` hold the
schemas that Keyhaul serves. Nothing here knows about links, pools or statements.

gRPC takes its list of TLS 1.2 cipher suites from the environment, once, when it is first imported: so it is set here,
to one that no P-256 certificate can serve. Its own words on stderr are turned off unless asked for: it takes every
server that is named by its common name for an error, after which it finds that name.
"""

import os
import sys

_SUITES = "GRPC_SSL_CIPHER_SUITES"
_UNUSABLE_WITH_ECDSA = "ECDHE-RSA-AES256-GCM-SHA384"

TLS_1_2_REFUSED = "grpc" not in sys.modules or os.environ.get(_SUITES) == _UNUSABLE_WITH_ECDSA
"""Whether gRPC was not there yet, so that what is set now has its effect."""

os.environ[_SUITES] = _UNUSABLE_WITH_ECDSA
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
