"""All settings, read from the environment once when a process starts (never at import)."""

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from psp_sandbox.testing.one_clock.library import FOLDER_VARIABLE
from sandbox.domain.redaction import register_secret

DEVELOPMENT_ADMIN_KEY = "ak_sandbox_development_admin"
DEVELOPMENT_API_KEY = "sk_sandbox_demo_admin"
DEVELOPMENT_MEMBER_KEY = "sk_sandbox_demo_member"
DEVELOPMENT_USERS_KEY = "sk_sandbox_demo_users"
DEVELOPMENT_API_KEYS = frozenset({DEVELOPMENT_API_KEY, DEVELOPMENT_MEMBER_KEY, DEVELOPMENT_USERS_KEY})
"""The demo merchants' keys. They are public, so they work on loopback only."""
_HOST_NAME = re.compile(r"\*|\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class SettingsError(ValueError):
    """A setting is missing or not valid. The message names it and says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process. Create them with `Settings.load`."""

    database_url: str
    redis_url: str
    admin_key: str
    secret_key: bytes
    """32 bytes that encrypt webhook and IPN secrets at rest."""
    host: str
    port: int
    ipn_port: int
    ipn_url: str
    """The base of the merchants' IPN URLs, without a trailing slash."""
    public_url: str
    """The base of problem `type` links and `Location` headers, without a trailing slash."""
    own_hosts: frozenset[str]
    """Host names, besides addresses and names of this machine, that requests may be sent to. `.example` includes subdomains."""
    webhook_allow: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    """Private networks to which webhooks can be delivered."""
    batch_limit: int
    queue_limit: int
    merchants_per_transaction: int
    """Merchants whose requests may share a transaction: on a distributed database, those of one shard."""
    pool_size: int
    log_level: str
    log_format: str
    metrics_port: int
    """The port on which a worker serves its metrics; 0 disables it."""
    clock_folder: Path | None
    """The folder of the clocks of applications that follow a merchant's clock. Set by `psp run --one-clock` and the plugin."""
    exports_traces: bool
    """Whether to export OpenTelemetry spans. OpenTelemetry reads the endpoint and its other settings itself."""
    dialects: str | None
    """The folder of the user's own dialects, whose modules are run when a process starts."""

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment (or `env`). Raises SettingsError for the first setting that is missing or not valid."""
        read = _Reader(os.environ if env is None else env)
        host = read.text("SANDBOX_HOST", "127.0.0.1")
        port = read.integer("SANDBOX_PORT", 8000, 0, 65535)
        ipn_port = read.integer("SANDBOX_IPN_PORT", 8001, 0, 65535)
        ipn_url = read.text("SANDBOX_IPN_URL", f"http://{host}:{ipn_port}").rstrip("/")
        public_url = read.text("SANDBOX_PUBLIC_URL", f"http://{host}:{port}").rstrip("/")
        settings = cls(
            database_url=read.url("DATABASE_URL", ("postgresql", "postgres")),
            redis_url=read.url("REDIS_URL", ("redis", "rediss", "unix")),
            admin_key=read.text("SANDBOX_ADMIN_KEY", DEVELOPMENT_ADMIN_KEY, min_length=16),
            secret_key=read.key("SANDBOX_SECRET_KEY"),
            host=host,
            port=port,
            ipn_port=ipn_port,
            ipn_url=ipn_url,
            public_url=public_url,
            own_hosts=read.host_names("SANDBOX_ALLOWED_HOSTS", ipn_url, public_url),
            webhook_allow=read.networks("SANDBOX_WEBHOOK_ALLOW"),
            batch_limit=read.integer("SANDBOX_BATCH_LIMIT", 256, 1, 1000),
            queue_limit=read.integer("SANDBOX_QUEUE_LIMIT", 20_000, 1, 1_000_000),
            merchants_per_transaction=read.integer("SANDBOX_MERCHANTS_PER_TRANSACTION", 64, 1, 1000),
            pool_size=read.integer("SANDBOX_POOL_SIZE", 8, 2, 100),
            log_level=read.choice("SANDBOX_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
            log_format=read.choice("SANDBOX_LOG_FORMAT", "json", ("json", "console")),
            metrics_port=read.integer("SANDBOX_METRICS_PORT", 0, 0, 65535),
            clock_folder=Path(path) if (path := read.env.get(FOLDER_VARIABLE)) else None,
            exports_traces=read.exports_traces(),
            dialects=read.folder("SANDBOX_DIALECTS"),
        )
        if host not in LOOPBACK_HOSTS and settings.admin_key == DEVELOPMENT_ADMIN_KEY:
            raise SettingsError(
                f"SANDBOX_ADMIN_KEY must be set to a key of your own when SANDBOX_HOST is {host!r}: "
                "the development key is public and works on loopback only."
            )
        if host in LOOPBACK_HOSTS and "*" in settings.own_hosts:
            raise SettingsError(
                f"SANDBOX_ALLOWED_HOSTS must not be * when SANDBOX_HOST is {host!r}: the development keys are public, "
                "so a web page that points its own name at this machine could use them."
            )
        # From now on, logs and problems must not show these values.
        register_secret(settings.admin_key)
        for url in (settings.database_url, settings.redis_url):
            register_secret(urlsplit(url).password or "")
        return settings


@dataclass(frozen=True, slots=True)
class _Reader:
    env: Mapping[str, str]

    def text(self, name: str, default: str | None = None, min_length: int = 1) -> str:
        value = self.env.get(name, "").strip() or default
        if value is None:
            raise SettingsError(f"{name} is required, but it is not set.")
        if len(value) < min_length:
            raise SettingsError(f"{name} must have at least {min_length} characters.")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        raw = self.env.get(name, "").strip()
        if not raw:
            return default
        if not raw.isascii() or not raw.isdigit() or not low <= int(raw[:12]) <= high:
            raise SettingsError(f"{name} must be a whole number from {low} to {high}, not {raw!r}.")
        return int(raw)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default).lower()
        if value not in choices:
            raise SettingsError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
        return value

    def url(self, name: str, schemes: tuple[str, ...]) -> str:
        value = self.text(name)
        if urlsplit(value).scheme not in schemes:
            # The value may contain a password, so the message does not repeat it.
            raise SettingsError(f"{name} must be a URL that begins with {schemes[0]}://.")
        return value

    def key(self, name: str) -> bytes:
        try:
            key = base64.urlsafe_b64decode(self.text(name))
        except (binascii.Error, ValueError) as error:
            if isinstance(error, SettingsError):
                raise
            key = b""
        if len(key) != 32:
            raise SettingsError(f"{name} must be 32 random bytes as URL-safe base64.")
        return key

    def host_names(self, name: str, *urls: str) -> frozenset[str]:
        """Read comma-separated host names, and add those of the URLs."""
        names = frozenset(filter(None, (part.strip().lower() for part in self.env.get(name, "").split(","))))
        for item in sorted(names):
            if not _HOST_NAME.fullmatch(item):
                raise SettingsError(
                    f"{name} must be a comma-separated list of host names such as psp.example or .example, not {item!r}."
                )
        return names | {urlsplit(url).hostname or "" for url in urls}

    def folder(self, name: str) -> str | None:
        value = self.env.get(name, "").strip()
        if value and not os.path.isdir(value):
            raise SettingsError(f"{name} must be a folder, and {value!r} is not one.")
        return value or None

    def exports_traces(self) -> bool:
        name = "OTEL_EXPORTER_OTLP_ENDPOINT"
        if not self.env.get(name, "").strip() or self.env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        self.url(name, ("http", "https"))
        try:
            found = find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        except ImportError:  # not even a parent package is installed
            found = None
        if found is None:
            raise SettingsError(
                f"{name} is set, but OpenTelemetry is not installed: install psp-sandbox[otel], or unset the variable."
            )
        return True

    def networks(self, name: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """Read comma-separated networks. `loopback` means 127.0.0.0/8 and ::1; `none` alone, or no value, means no networks."""
        if self.env.get(name, "").strip() == "none":
            return ()
        found: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for item in filter(None, (part.strip() for part in self.env.get(name, "").split(","))):
            try:
                found += map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128") if item == "loopback" else (item,))
            except ValueError:
                raise SettingsError(
                    f"{name} must be a comma-separated list of networks such as 10.0.0.0/8, loopback, or none, not {item!r}."
                ) from None
        return tuple(found)
