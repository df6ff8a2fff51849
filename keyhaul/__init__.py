"""What every Keyhaul service stands on: identity, transport, keys, stores, links, configuration, commands.

Nothing here knows a service: roles and commands register through entry points (`keyhaul.roles`,
`keyhaul.commands`) and are loaded by name.
"""
