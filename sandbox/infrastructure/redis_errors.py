"""What says that Redis is away. The client wraps what its sockets meet; no other OSError is about Redis."""

from typing import Final

from redis.exceptions import RedisError

REDIS_ERRORS: Final = (RedisError, ConnectionError, TimeoutError)
