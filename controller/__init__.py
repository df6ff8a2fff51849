"""The QKDN controller: what the network is and does, which paths fit, and what each CKMS is told to forward.

It speaks gNMI to the CKMSs, answers their path requests, and serves the operator's tools. It sees no user, no SAE, no
UKMS and no AKMS, and no key bits.
"""
