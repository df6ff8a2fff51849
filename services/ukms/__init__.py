"""The user KMS: the KME of a user's site, which SAEs ask for keys over ETSI GS QKD 014.

It keeps both kinds of copies, master and slave, hands each out once, and talks to its AKMS and its QKD module
only. It knows nothing of the carrier.
"""
