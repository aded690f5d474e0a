"""A run of the sandbox: embedded PostgreSQL and Redis, and the supervisor that starts, restarts and stops all processes."""
