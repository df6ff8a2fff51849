"""The command line: one module per subcommand, each loaded only when it is named."""
