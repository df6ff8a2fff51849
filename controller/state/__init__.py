"""What the controller must not forget: the plan, what it promised and installed, what happened, and who leads.

In PostgreSQL that several controllers share, or in an SQLite file of one controller alone. Only the leader writes:
each of its transactions first makes sure that it still is (`lease.hold`).
"""
