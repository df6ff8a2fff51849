"""A whole network as processes on one machine: what `keyhaul network` does after it was laid out."""
