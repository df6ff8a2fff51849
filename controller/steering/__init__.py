"""What the CKMSs are to forward, what they do forward, and what to tell them next: sans-IO, effects come out.

`Steering` is the entry. It decides; signing, sending, reading back and recording are its driver's.
"""
