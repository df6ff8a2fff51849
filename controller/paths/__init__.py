"""Which paths fit: pure functions over an immutable view of the network. No I/O, no clock, no state."""
