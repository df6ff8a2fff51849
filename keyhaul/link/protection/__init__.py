"""Protections: how a sealed message gets its secrecy and its tag from pad. One class a suite, one registry.

Sans-IO. A new suite is a class that implements `interface.Protection` and a line in `registry`.
"""
