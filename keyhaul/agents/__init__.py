"""Where the controller and a CKMS meet: gNMI at both ends, and the signed statements that steer forwarding."""
