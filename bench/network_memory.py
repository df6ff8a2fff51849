"""Memory of all services of the Berlin–Bonn network after a thousand keys."""

from __future__ import annotations

from collections import defaultdict

from bench.encryptor import Encryptor, share
from bench.figure import Figure
from bench.network import running
from bench.observe import proportional_bytes, with_children

KEYS = 1000
KEYS_PER_REQUEST = 50
GIB = 2**30


async def measure() -> Figure:
    """Return GiB: the sum of PSS of all services, their children and the supervisor that they share pages with."""
    with running() as network:
        first, second = network.far_pair()
        async with Encryptor(first) as master, Encryptor(second) as slave:
            for _ in range(KEYS // KEYS_PER_REQUEST):
                await share(master, slave, KEYS_PER_REQUEST)
        by_role: defaultdict[str, list[int]] = defaultdict(list)
        seen: set[int] = set()
        main = network.processes()
        supervisor = main.pop("supervisor")
        for service, pid in main.items():
            family = with_children({pid})
            seen |= family
            by_role[service.partition("-")[0]].append(sum(map(proportional_bytes, family)))
        others = with_children({supervisor}) - seen
        by_role["supervisor"].append(sum(map(proportional_bytes, others)))
    total = sum(map(sum, by_role.values()))
    return Figure(
        "network_memory",
        total / GIB,
        "GiB",
        4.0,
        "lower",
        {
            "keys": KEYS,
            "services": len(main),
            "processes": len(seen | others),
            "mib_by_role": {
                role: {
                    "processes": len(found),
                    "sum": round(sum(found) / 2**20, 1),
                    "largest": round(max(found) / 2**20, 1),
                }
                for role, found in sorted(by_role.items())
            },
            "source": "Pss of /proc/PID/smaps_rollup",
        },
    )
