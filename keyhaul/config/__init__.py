"""Configuration: typed, checked whole at start, with every error at once and where it is.

`services` has one type per role's file, `description` the network description from which `keyhaul network init`
writes those files, `subscribers` the file that AAA imports. `loader` reads and checks them all, `writer` writes them.
"""
