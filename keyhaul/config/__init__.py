"""Configuration: typed, checked whole at start, with every error at once and where it is.

`services` has one type per role's file, `description` the network description from which `keyhaul network init`
writes those files, `loader` reads and checks both.
"""
