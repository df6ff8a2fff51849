"""Durable state of one service: an encrypted embedded database behind an interface that a server database can take.

What is stored is the services' affair; how it is opened, sealed, written and upgraded is decided here.
"""
