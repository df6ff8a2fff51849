"""The plain SQL database of a service in the data centre: SQLite for the small, PostgreSQL for what must not fail.

Here it is opened, brought to a release's tables and used from a thread of its own; tables and statements are the
services' affair. Nothing in it is key material: that lives in `keyhaul.store`.
"""
