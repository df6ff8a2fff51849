"""Configuration: typed, checked whole at start, with every error at once and where it is.

`services` has one type per role's file, `description` the network description from which `keyhaul network init`
writes those files, `subscribers` the file that AAA imports, `carrier` the plan that controllers read.
`loader` reads and checks the files in TOML, `writer` writes them.
"""
