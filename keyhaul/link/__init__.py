"""A link: two adjacent nodes, the KMA keys they share, and how messages between them are sealed.

The cores (`session`, `direction`, `window`, `protection`) are sans-IO; `link` drives them over the transport,
a store and a QKD module. Nothing here knows what the messages are about.
"""
