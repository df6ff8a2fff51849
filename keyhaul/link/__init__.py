"""A link: two adjacent nodes, the KMA keys they share, and how messages between them are sealed.

The cores (`session`, `reconciliation`, `sender`, `receiver`, `channel`, `pads`, `window`, `protection`) are sans-IO;
`links`, `link`, `core`, `sealing`, `establishing` and `refill` drive them over the transport, a store and a QKD
module. Nothing here knows what the messages are about.
"""
