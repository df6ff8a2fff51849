"""Run benchmarks by name; each prints its figure as a line of JSON, last on standard output."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import traceback
from importlib import import_module

from bench import network

FIGURES = (
    "t_key_cold",
    "t_key_warm",
    "keys_per_second",
    "hop_delay",
    "hop_cpu_per_key",
    "hop_cpu_per_key_1024",
    "network_start",
    "network_memory",
    "otp_efficiency",
    "sae_request_ratio",
    "reroute",
    "detect_frozen",
    "fairness",
    "slow_link",
    "back_after_fault",
    "controller_changeover",
    "telemetry_cpu",
    "install_path",
    "switch_to_backup",
    "reconvergence",
    "controller_memory",
    "blocking_ratio",
    "path_1000",
    "path_10000",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Keyhaul on this machine.")
    parser.add_argument("name", nargs="*", metavar="NAME", help="figures to measure (default: all)")
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    parser.add_argument(
        "--loopback", default=network.loopback, help="range of loopback addresses to use (default: %(default)s)"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.name) - set(FIGURES))
    if unknown:
        parser.error(f"no figure is called {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    if arguments.list:
        print("\n".join(FIGURES))
        return 0
    network.loopback = arguments.loopback
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop what was started
    lines, failed = [], []
    for name in arguments.name or FIGURES:
        print(f"measuring {name}", file=sys.stderr)
        try:
            lines.append(asyncio.run(import_module(f"bench.{name}").measure()).line())
        except KeyboardInterrupt:
            failed.append(name)
            break
        except Exception:
            traceback.print_exc()
            failed.append(name)
    for name in failed:
        print(f"{name} was not measured", file=sys.stderr)
    print("\n".join(lines))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
