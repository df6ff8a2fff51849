"""The SDN agent of a carrier KMS: what its controllers see of it over gNMI, and how they steer it.

`facts` and `etsi015` say what there is, as the two YANG modules have it; `modules` and `key_rate` find out what the QKD
modules yield; `writer` takes statements; `agent` puts all of it on a gNMI target. No user, SAE, UKMS or AKMS appears in
anything here, and no key material.
"""
