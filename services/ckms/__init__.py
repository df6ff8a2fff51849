"""The carrier KMS: relays batches of CN keys from link to link along labelled paths.

It knows labels, neighbours and the AKMS of its node. No user, SAE, UKMS or grant appears in anything here.
"""
