"""How services talk: HTTP/2 over quantum-safe TLS 1.3, typed and versioned messages, one table of who may call what.

Nothing here knows what the messages mean.
"""
