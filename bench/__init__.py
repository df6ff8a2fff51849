"""Benchmarks. Each prints one figure as a line of JSON and what it is compared with.

`python -m bench` runs all, `python -m bench NAME …` some, `python -m bench --list` names them.
"""

import keyhaul.agents.gnmi  # noqa: F401 - before anything here imports gRPC, see there
