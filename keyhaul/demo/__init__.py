"""The demonstration: a whole network on one machine, two encryptors that talk, a cut fibre, and what it took.

It uses only what users and operators have: the command line, ETSI GS QKD 014, and the services' local sockets.
"""
