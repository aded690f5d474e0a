"""Receivers with one classic mistake each. `psp certify` finds exactly that mistake.

    python -m examples.receivers.broken no_dedup --secret whsec_...
    psp certify http://127.0.0.1:9000/webhooks --secret whsec_... --probe-url http://127.0.0.1:9000/probe

Each one is the correct receiver (`correct_python.py`) with one method replaced. Copy none of them.
"""

import argparse
import base64
import hmac
import json
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from examples.receivers.broken_effects import (
    AppliesOutOfOrder,
    BoundedQueue,
    CrashesOnBulkCredits,
    CrashesOnEmoji,
    CrashesOnWallets,
    DedupByPayout,
    DedupByReference,
    DedupByStatus,
    DedupByType,
    DropsLateEvents,
    FastRacyDedup,
    NoDedup,
    RacyDedup,
    RejectsUnknownEvents,
    RejectsUnknownFields,
)
from examples.receivers.correct_python import TOLERANCE, Receiver, serve


class NoVerification(Receiver):
    """Trusts every request."""

    fails = (
        "refuses_tampered_body",
        "refuses_wrong_key",
        "refuses_stale_timestamp",
        "refuses_future_timestamp",
        "refuses_missing_headers",
        "refuses_malformed_signature",
        "refuses_malformed_timestamp",
        "refuses_unknown_scheme",
    )

    def is_valid(self, headers: Mapping[str, str], body: bytes) -> bool:
        return len(body) > 0


class ActsBeforeVerifying(Receiver):
    """Refuses with the right status, but only after it has acted on the event. Only the probe shows it."""

    fails = (
        "refuses_tampered_body",
        "refuses_wrong_key",
        "refuses_stale_timestamp",
        "refuses_future_timestamp",
        "refuses_missing_headers",
        "refuses_malformed_signature",
        "refuses_malformed_timestamp",
        "refuses_unknown_scheme",
    )

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> int:
        if method == "POST" and body.startswith(b'{"id":') and b'"type":"payout.' in body:
            self.act_on(json.loads(body))
        return super().handle(method, headers, body)


class KeyNotDecoded(Receiver):
    """Uses the text of the secret as the key, without decoding it from base64."""

    fails = ("accepts_valid",)

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self.key = secret.encode()


class NoTimestampCheck(Receiver):
    """Verifies the signature, but accepts it forever."""

    fails = ("refuses_stale_timestamp", "refuses_future_timestamp")

    def is_recent(self, stamp: str) -> bool:
        return stamp.isdigit() and len(stamp) <= 12


class AcceptsFuture(Receiver):
    """Refuses old timestamps only. The difference is negative for a future one."""

    fails = ("refuses_future_timestamp",)

    def is_recent(self, stamp: str) -> bool:
        return stamp.isdigit() and len(stamp) <= 12 and time.time() - int(stamp) <= TOLERANCE


class ToleranceOfAnHour(Receiver):
    """Allows a difference of 55 minutes."""

    fails = ("refuses_stale_timestamp", "refuses_future_timestamp")

    def is_recent(self, stamp: str) -> bool:
        return stamp.isdigit() and len(stamp) <= 12 and abs(time.time() - int(stamp)) <= 55 * 60


class ToleranceOfSeconds(Receiver):
    """Allows a difference of five seconds."""

    fails = ("accepts_recent_timestamp",)

    def is_recent(self, stamp: str) -> bool:
        return stamp.isdigit() and len(stamp) <= 12 and abs(time.time() - int(stamp)) <= 5


class CrashesOnTimestamp(Receiver):
    """Converts the timestamp to a number before it knows that it is one."""

    fails = ("refuses_malformed_timestamp",)

    def is_recent(self, stamp: str) -> bool:
        return bool(stamp) and abs(time.time() - int(stamp)) <= TOLERANCE


class DecodesAsLatin1(Receiver):
    """Decodes the body in another encoding before it verifies it."""

    fails = ("accepts_any_text",)

    def expected(self, headers: Mapping[str, str], body: bytes) -> bytes:
        return super().expected(headers, body.decode("latin-1").encode())


class StripsBody(Receiver):
    """Verifies the body without the spaces and line breaks around it."""

    fails = ("keeps_raw_body",)

    def expected(self, headers: Mapping[str, str], body: bytes) -> bytes:
        return super().expected(headers, body.strip())


class ReserializesBody(Receiver):
    """Verifies JSON that was parsed and written again, as after a framework's body parser."""

    fails = ("accepts_any_text", "keeps_raw_body")

    def expected(self, headers: Mapping[str, str], body: bytes) -> bytes:
        again = json.dumps(json.loads(body), separators=(",", ":")) if body else ""
        return super().expected(headers, again.encode())


class FirstSignatureOnly(Receiver):
    """Reads only the first signature."""

    fails = ("accepts_rotation",)

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        first = headers.get("webhook-signature", "").split(" ")[0]
        return hmac.compare_digest(self.expected(headers, body), first.encode())


class CrashesOnMalformedSignature(Receiver):
    """Expects a comma and base64 in each signature. Anything else raises an error and becomes a 500."""

    fails = ("refuses_unknown_scheme",)
    advises = ("refuses_malformed_signature",)

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        expected = base64.b64decode(self.expected(headers, body)[3:])
        for one in headers.get("webhook-signature", "").split():
            _version, text = one.split(",")
            if hmac.compare_digest(expected, base64.b64decode(text)):
                return True
        return False


class AcceptsPartOfSignature(Receiver):
    """Compares with `startswith`, so an empty signature is right."""

    fails = ("refuses_malformed_signature",)

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        given = headers.get("webhook-signature", "").encode().split()
        return any(one.startswith(b"v1,") and self.expected(headers, body).startswith(one) for one in given)


class ComparesBeginning(Receiver):
    """Compares the first 16 characters of the signature."""

    fails = ("refuses_wrong_key",)

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        given = headers.get("webhook-signature", "").encode().split()
        return any(len(one) > 19 and hmac.compare_digest(self.expected(headers, body)[:19], one[:19]) for one in given)


class AcceptsUnknownSchemes(Receiver):
    """Leaves signatures of another scheme to a later version."""

    fails = ("refuses_unknown_scheme",)

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        given = headers.get("webhook-signature", "").split()
        return any("," in one and not one.startswith("v1,") for one in given) or super().has_signature(headers, body)


class IgnoresScheme(Receiver):
    """Compares what follows the comma, whatever scheme is before it."""

    fails = ("refuses_unknown_scheme",)

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        given = headers.get("webhook-signature", "").encode().split()
        expected = self.expected(headers, body).removeprefix(b"v1,")
        return any(hmac.compare_digest(expected, one.partition(b",")[2]) for one in given)


class SkipsVerificationToDebug(Receiver):
    """Has a header that skips the verification."""

    fails = ("refuses_wrong_key",)

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        return headers.get("x-debug") == "true" or super().has_signature(headers, body)


class VerifiesOnlyIfSigned(Receiver):
    """Skips the verification if a header is missing, "for local tests"."""

    fails = ("refuses_missing_headers",)

    def is_valid(self, headers: Mapping[str, str], body: bytes) -> bool:
        if body and not {"webhook-id", "webhook-timestamp", "webhook-signature"} <= headers.keys():
            return True
        return super().is_valid(headers, body)


class AnswersPings(Receiver):
    """Answers 200 to anything without a body, so that browsers and monitors see that it is up."""

    fails = ("refuses_unsigned",)

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> int:
        return super().handle(method, headers, body) if body else 200


class SmallBodyLimit(Receiver):
    """Accepts at most 16 kB, which is less than a payout with much metadata has."""

    fails = ("accepts_large_body",)
    body_limit = 16 * 1024


class AnswersAfterProcessing(Receiver):
    """Does slow work before it answers."""

    fails = ("answers_in_time",)
    processing_seconds = 20.0

    def act_on(self, event: dict[str, Any]) -> None:
        super().act_on(event)
        time.sleep(self.processing_seconds)


class FailsUnderBurst(Receiver):
    """Answers 503 while another webhook is written, as with a database that is locked."""

    fails = ("survives_burst",)

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self._database = threading.Lock()

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> int:
        if not self._database.acquire(blocking=False):
            return 503
        try:
            status = super().handle(method, headers, body)
            if status == 200:
                time.sleep(0.01)  # the write
            return status
        finally:
            self._database.release()


class LeaksProgress(Receiver):
    """Compares character by character. It takes longer the more of a signature is right: `psp certify` advises against it."""

    fails = ()

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        expected = self.expected(headers, body)
        return any(self._equal(expected, one) for one in headers.get("webhook-signature", "").encode().split())

    def _equal(self, expected: bytes, given: bytes) -> bool:
        if len(expected) != len(given):
            return False
        for ours, theirs in zip(expected, given, strict=True):
            if ours != theirs:
                return False
            time.sleep(0.0005)  # a slow language, or a call for each character
        return True


MISTAKES: Final = {
    "no_verification": NoVerification,
    "acts_before_verifying": ActsBeforeVerifying,
    "key_not_decoded": KeyNotDecoded,
    "no_timestamp_check": NoTimestampCheck,
    "accepts_future": AcceptsFuture,
    "reserializes_body": ReserializesBody,
    "first_signature_only": FirstSignatureOnly,
    "tolerance_of_an_hour": ToleranceOfAnHour,
    "tolerance_of_seconds": ToleranceOfSeconds,
    "crashes_on_timestamp": CrashesOnTimestamp,
    "decodes_as_latin_1": DecodesAsLatin1,
    "strips_body": StripsBody,
    "compares_beginning": ComparesBeginning,
    "accepts_unknown_schemes": AcceptsUnknownSchemes,
    "ignores_scheme": IgnoresScheme,
    "skips_verification_to_debug": SkipsVerificationToDebug,
    "no_dedup": NoDedup,
    "dedup_by_payout": DedupByPayout,
    "dedup_by_reference": DedupByReference,
    "dedup_by_type": DedupByType,
    "dedup_by_status": DedupByStatus,
    "racy_dedup": RacyDedup,
    "fast_racy_dedup": FastRacyDedup,
    "drops_late_events": DropsLateEvents,
    "bounded_queue": BoundedQueue,
    "crashes_on_bulk_credits": CrashesOnBulkCredits,
    "crashes_on_wallets": CrashesOnWallets,
    "crashes_on_emoji": CrashesOnEmoji,
    "applies_out_of_order": AppliesOutOfOrder,
    "rejects_unknown_events": RejectsUnknownEvents,
    "rejects_unknown_fields": RejectsUnknownFields,
    "crashes_on_malformed_signature": CrashesOnMalformedSignature,
    "accepts_part_of_signature": AcceptsPartOfSignature,
    "verifies_only_if_signed": VerifiesOnlyIfSigned,
    "answers_pings": AnswersPings,
    "small_body_limit": SmallBodyLimit,
    "answers_after_processing": AnswersAfterProcessing,
    "fails_under_burst": FailsUnderBurst,
    "leaks_progress": LeaksProgress,
}
"""Each mistake's receiver. Its `fails` are the checks that it fails, and its `advises` those that give advice."""


def main() -> None:
    """Serve the receiver with the given mistake."""
    parser = argparse.ArgumentParser(description="A receiver of webhooks with one mistake.")
    parser.add_argument("mistake", choices=MISTAKES)
    parser.add_argument("--secret", required=True, help="the endpoint's secret, whsec_...")
    parser.add_argument("--port", type=int, default=9000)
    given = parser.parse_args()
    serve(MISTAKES[given.mistake](given.secret), given.port)


if __name__ == "__main__":
    main()
