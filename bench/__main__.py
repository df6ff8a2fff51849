"""Run benchmarks by name; each prints its figure as a line of JSON, last on standard output."""

from __future__ import annotations

import argparse
import asyncio
import sys
from importlib import import_module

FIGURES = ("t_key_cold", "t_key_warm", "keys_per_second")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Keyhaul on this machine.")
    parser.add_argument("name", nargs="*", metavar="NAME", help="figures to measure (default: all)")
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.name) - set(FIGURES))
    if unknown:
        parser.error(f"no figure is called {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    if arguments.list:
        print("\n".join(FIGURES))
        return 0
    lines = []
    for name in arguments.name or FIGURES:
        print(f"measuring {name}", file=sys.stderr)
        lines.append(asyncio.run(import_module(f"bench.{name}").measure()).line())
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
