"""The time to share one key when nothing is prepared: `enc_keys` at Berlin until `dec_keys` answered at Bonn.

CN pools and buffers are off by configuration; connections, the path and the links' pads are there. Every sample pays
for the grant check, the relay over twelve hops, confirmation, transfer, both deliveries and the fetch at the other
end.

On one machine the fibre takes no time. So a second network, laid out alike, is measured through delay lines in user
space (`fibre`): every connection between nodes, modules' and AAA's apart, is late by 5 us/km one way, links by
their own lengths (923 km in all), the two AKMSs by the 881 km between them. The lines cost time themselves; detail has
the same samples through lines of no length as well. The encryptors have no fibre between them: they are one process.

Round trips over the whole way, one after the other, are two by design: the request goes to Bonn and the CN bits come
back; their confirmation goes to Bonn and the keys come back. The announcement, the copy for Bonn's site and all
acknowledgements go beside them. The request's way and the keys' over Berlin's access link add one round trip of that.

DemoQuanDT measured 17.34 ± 1.62 s over the same chain of nodes in the field.
"""

from __future__ import annotations

from bench.fibre import SECONDS_PER_KM, laid, stretch
from bench.figure import Figure, spread
from bench.network import BERLIN_BONN, laid_out, running, start
from bench.sampling import samples
from keyhaul.config.description_checks import load_description

SAMPLES = 1000
FIBRE_SAMPLES = 150
STRETCHED = 4
"""Times its length: what lines and scheduling cost matters less then, and the round trips show."""
WARM_UP = 20
DEMOQUANDT_MS = 17_340.0
ROUND_TRIPS = 2


async def measure() -> Figure:
    """Return the median of the samples without fibre, in milliseconds."""
    with running(without_pools=True) as network:
        figures = spread(await samples(network, SAMPLES, warm_up=WARM_UP))
    description = load_description(BERLIN_BONN)
    with laid_out(without_pools=True) as network:
        async with laid(stretch(network, description)) as fibre:
            start(network)
            fibred = spread(await samples(network, FIBRE_SAMPLES, warm_up=WARM_UP))
            await fibre.scale(STRETCHED)
            stretched = spread(await samples(network, FIBRE_SAMPLES // 2, warm_up=WARM_UP))
            await fibre.scale(0.0)
            lines_alone = spread(await samples(network, FIBRE_SAMPLES, warm_up=WARM_UP))
    km = sum(link.km for link in description.link if "16" not in link.hop)
    access = next(link.km for link in description.link if link.hop == {"1", "2"})
    other_access = next(link.km for link in description.link if link.hop == {"14", "15"})
    computed = 2e3 * SECONDS_PER_KM * (ROUND_TRIPS * (km - access - other_access) + access)
    return Figure(
        "t_key_cold",
        figures["median"],
        "ms",
        50.0,
        "lower",
        {
            **figures,
            "p99_budget": 100.0,
            "round_trips_end_to_end": ROUND_TRIPS,
            "with_fibre": {
                "km": km,
                "measured_through_delay_lines": fibred,
                "lines_of_no_length": lines_alone,
                "measured_difference_of_medians": round(fibred["median"] - lines_alone["median"], 3),
                f"through_lines_{STRETCHED}_times_as_long": stretched,
                "measured_per_length": round((stretched["median"] - fibred["median"]) / (STRETCHED - 1), 3),
                "computed_from_round_trips": round(computed, 3),
            },
            "demoquandt_ms": DEMOQUANDT_MS,
            "times_faster": round(DEMOQUANDT_MS / figures["median"]),
        },
    )
