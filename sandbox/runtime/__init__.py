"""The embedded run: PostgreSQL and Redis of our own, and the supervisor that keeps all processes up and ends them."""
