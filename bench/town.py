"""A small network for measurements of pressure: two customers, each with a site of its own at both ends of one path.

modest-west, greedy-west – a – m – b – modest-east, greedy-east
"""

from __future__ import annotations

_NODES = [
    ("modest-west", 1, ["ukms"]),
    ("greedy-west", 2, ["ukms"]),
    ("a", 3, ["akms", "ckms"]),
    ("m", 4, ["ckms"]),
    ("b", 5, ["akms", "ckms"]),
    ("modest-east", 6, ["ukms"]),
    ("greedy-east", 7, ["ukms"]),
    ("dc", 100, ["aaa"]),
]
_ACCESS = [("modest-west", "a"), ("greedy-west", "a"), ("b", "modest-east"), ("b", "greedy-east")]
_CARRIER = [("a", "m"), ("m", "b")]
FAST = 200_000
"""Key rate of the links that bound nothing, bits per second."""


def description(contracts: dict[str, str], *, carrier: str = f"skr = {FAST}", stock: float = 30.0) -> str:
    """The network description.

    Args:
        contracts: for each of `modest` and `greedy` the lines of its contract.
        carrier: the lines of the two links between the carrier's nodes.
        stock: seconds of their rate that modules have in store at the start.
    """
    text = [
        '[network]\nname = "town"\ndomain = "bench.example"\n',
        f"[modules]\nstock = {stock}\nfixed_rate = true\n",
    ]
    for name, number, roles in _NODES:
        text.append(f'[[node]]\nname = "{name}"\nnumber = {number}\nroles = {roles}\n'.replace("'", '"'))
    for first, second in _ACCESS:
        text.append(f'[[link]]\na = "{first}"\nb = "{second}"\nkm = 5\nskr = {FAST}\n')
    for first, second in _CARRIER:
        text.append(f'[[link]]\na = "{first}"\nb = "{second}"\nkm = 50\n{carrier}\n')
    for customer, terms in contracts.items():
        text.append(f'[[customer]]\nname = "{customer}"\n\n[[customer.contract]]\nname = "keys"\n{terms}\n')
        for end in ("west", "east"):
            text.append(f'[[sae]]\nid = "{customer}-{end}"\nnode = "{customer}-{end}"\ncustomer = "{customer}"\n')
    return "\n".join(text)
