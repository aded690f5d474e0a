"""The embedded run: its own PostgreSQL and Redis, and the supervisor that starts, restarts and stops all processes."""
