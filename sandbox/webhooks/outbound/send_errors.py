"""Describe why a webhook could not be sent: a class for programs and a sentence for people."""

import asyncio
import errno
import os
import ssl
from typing import NamedTuple

import aiohttp
from aiohttp import http_exceptions

from sandbox.domain.enumerations import ErrorClass
from sandbox.webhooks.outbound.resolver import LookupTimeoutError, MetadataNameError


class SendError(NamedTuple):
    """Why an attempt failed."""

    error_class: ErrorClass
    text: str


def describe(error: Exception, refused: str | None, seconds: float) -> SendError:
    """Describe an exception of a send. Checks the most specific classes first.

    `refused` is why the address guard refused all addresses of the host, or None. `seconds` is the timeout. Never uses
    str(error): aiohttp puts the URL into it, and the URL can contain the endpoint's password.
    """
    if isinstance(error, asyncio.TimeoutError):
        return SendError("TIMEOUT", f"timed out after {seconds:g} s")
    if isinstance(error, aiohttp.ClientConnectorError):
        return _describe_connect_error(error, refused)
    if isinstance(error, aiohttp.InvalidURL):
        return SendError("INVALID_URL", "the URL is not valid")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return SendError("CONNECTION_CLOSED", "the server closed the connection without a complete response")
    if isinstance(error, aiohttp.ClientPayloadError):
        return SendError("INVALID_RESPONSE", "the response broke off or its body is malformed")
    if isinstance(error, http_exceptions.HttpProcessingError):
        if isinstance(error.__cause__, http_exceptions.LineTooLong):
            return SendError("INVALID_RESPONSE", "the response's headers are too large")
        return SendError("INVALID_RESPONSE", "the response is not valid HTTP")
    if isinstance(error, OSError):
        return SendError("CONNECTION_RESET", f"connection lost: {_reason(error)}")
    if isinstance(error, (ValueError, TypeError)):
        return SendError("INVALID_REQUEST", "the request could not be written: a header or the URL is not valid")
    # Includes the RuntimeError of a closed sender.
    return SendError("INTERNAL", f"the request failed ({type(error).__name__})")


def _describe_connect_error(error: aiohttp.ClientConnectorError, refused: str | None) -> SendError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "it does not match the host"
        return SendError("TLS", f"TLS certificate not valid: {why}")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        if isinstance(error.os_error, LookupTimeoutError):
            return SendError("DNS_TIMEOUT", "the host name could not be looked up: no name server responded in time")
        if isinstance(error.os_error, MetadataNameError):
            return SendError("BLOCKED_ADDRESS", "the host is a cloud metadata service and is never allowed")
        return SendError("DNS", "the host name does not resolve")
    if isinstance(error, aiohttp.ClientSSLError):
        reason = getattr(error.os_error, "reason", None)  # OpenSSL's, such as WRONG_VERSION_NUMBER
        detail = f": {reason.replace('_', ' ').lower()}" if reason else ""
        return SendError("TLS", f"TLS handshake failed{detail}")
    if refused is not None:
        return SendError("BLOCKED_ADDRESS", refused)
    if error.os_error.errno == errno.ECONNREFUSED:
        return SendError("CONNECTION_REFUSED", "connection refused")
    return SendError("CONNECT_FAILED", f"connection failed: {_reason(error.os_error)}")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else "unknown reason"
