"""A process's Redis client, which everything shares that can wait for Redis for two seconds."""

from redis.asyncio import Redis


def connect(redis_url: str, *, read_timeout: float | None = 2.0) -> Redis:
    """Return a Redis client, which connects when it is first used. `read_timeout` is in seconds; None for a subscription."""
    client: Redis = Redis.from_url(redis_url, socket_timeout=read_timeout, socket_connect_timeout=2)
    return client
