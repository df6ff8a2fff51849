"""Simulated QKD modules behind a real ETSI GS QKD 014 interface: the two ends of a link, each with its own KME.

Nothing here knows Keyhaul's key management: a KMS reaches these modules exactly as it reaches real ones. What
stands in for fibre, sifting and distillation is `generator` and the channel between the two ends.
"""
