"""Machine and service manager of a worker: limits, memory, zombies, systemd."""
