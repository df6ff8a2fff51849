"""How load is held to what was agreed: token buckets, fair turns, and times to come back that hold.

Cores are sans-IO; `gate` is the asyncio driver of `fair`. What a flow is (a contract, a customer's program, a
neighbour) is the user's to say.
"""
