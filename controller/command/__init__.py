"""Commands of `keyhaul` that ask the controller: topology, path, whatif, node, top."""
