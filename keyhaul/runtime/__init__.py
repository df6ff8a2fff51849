"""How a service process lives: structured logs, metrics, health, the local socket, owned tasks, a clean stop."""
