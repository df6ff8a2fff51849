"""Which demands the network takes on: service classes, reservations, refusals. Pure state; time is an argument."""
