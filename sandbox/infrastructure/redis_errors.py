"""The errors raised when Redis is unavailable. The client wraps socket errors, so no other OSError comes from Redis."""

from typing import Final

from redis.exceptions import RedisError

REDIS_ERRORS: Final = (RedisError, ConnectionError, TimeoutError)
