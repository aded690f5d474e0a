"""Receivers that verify webhooks correctly and act on them wrongly: twice, not at all, or not in some cases.

    python -m examples.receivers.broken dedup_by_payout --secret whsec_...

Each one is the correct receiver (`correct_python.py`) with one method replaced. Copy none of them.
"""

import json
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from examples.receivers.correct_python import Receiver


class NoDedup(Receiver):
    """Acts on a webhook each time it arrives."""

    fails: tuple[str, ...] = ("handles_duplicate", "handles_concurrent_duplicates")

    def is_duplicate(self, event: dict[str, Any]) -> bool:
        return False


class DedupByPayout(Receiver):
    """Takes a second event of a payout for a duplicate. So the first event wins."""

    fails = ("handles_every_change",)

    def key_of(self, event: dict[str, Any]) -> str:
        """Return what two events must share to count as the same one."""
        return str(event["data"]["id"])

    def is_duplicate(self, event: dict[str, Any]) -> bool:
        return super().is_duplicate({"id": self.key_of(event)})


class DedupByReference(DedupByPayout):
    """Takes a second event with the same merchant_reference for a duplicate."""

    def key_of(self, event: dict[str, Any]) -> str:
        return str(event["data"]["merchant_reference"])


class DedupByType(DedupByPayout):
    """Takes a second event of a payout with the same type for a duplicate, such as a second failure."""

    def key_of(self, event: dict[str, Any]) -> str:
        return f"{event['data']['id']} {event['type']}"


class DedupByStatus(DedupByPayout):
    """Takes a second event of a payout with the same status for a duplicate, such as a second failure."""

    def key_of(self, event: dict[str, Any]) -> str:
        return f"{event['data']['id']} {event['data']['status']}"


class RacyDedup(Receiver):
    """Looks for the id, acts, and stores the id then. Two simultaneous copies both find nothing."""

    fails = ("handles_concurrent_duplicates",)
    processing_seconds = 0.02

    def act_on(self, event: dict[str, Any]) -> None:
        if event["id"] not in self._seen:
            time.sleep(self.processing_seconds)
            data = event["data"]
            payout = self._payouts.setdefault(data["id"], {"status": None, "version": 0, "applied": 0})
            if not self.is_outdated(data, payout):
                payout.update(status=data["status"], version=data["version"], applied=payout["applied"] + 1)
            self._seen.add(event["id"])


class FastRacyDedup(RacyDedup):
    """The same with a fast database: the time between looking and storing is a millisecond."""

    processing_seconds = 0.001


class AppliesOutOfOrder(Receiver):
    """Lets the event that arrives last win."""

    fails = ("handles_out_of_order",)

    def is_outdated(self, data: dict[str, Any], payout: dict[str, Any]) -> bool:
        return False


class DropsLateEvents(Receiver):
    """Ignores events that are older than a day, as if they were replays."""

    fails = ("accepts_late_event",)

    def act_on(self, event: dict[str, Any]) -> None:
        if datetime.fromisoformat(event["timestamp"]) > datetime.now(UTC) - timedelta(days=1):
            super().act_on(event)


class BoundedQueue(Receiver):
    """Has room for twelve events at a time, and drops the others without a word."""

    fails = ("survives_burst",)

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self._room = threading.Semaphore(12)

    def act_on(self, event: dict[str, Any]) -> None:
        if self._room.acquire(blocking=False):
            time.sleep(0.02)
            super().act_on(event)
            self._room.release()


class RejectsUnknownEvents(Receiver):
    """Answers 400 to types of events that it does not know."""

    fails = ("accepts_every_event", "accepts_unknown_event")
    known = ("payout.created", "payout.processing", "payout.succeeded", "payout.failed", "payout.reinitiated")

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> int:
        status = super().handle(method, headers, body)
        return 400 if status == 200 and json.loads(body)["type"] not in self.known else status


class RejectsUnknownFields(Receiver):
    """Answers 422 to fields that it does not know."""

    fails = ("accepts_unknown_fields",)
    known = frozenset({"id", "type", "timestamp", "livemode", "previous_status", "data"})

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> int:
        status = super().handle(method, headers, body)
        return 422 if status == 200 and json.loads(body).keys() - self.known else status


class CrashesOnBulkCredits(Receiver):
    """Reads a field of payouts before it looks at the type of the event."""

    fails = ("accepts_every_event",)

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> int:
        status = super().handle(method, headers, body)
        if status == 200:
            json.loads(body)["data"]["merchant_reference"]
        return status


class CrashesOnWallets(Receiver):
    """Expects a bank in each payout."""

    fails = ("accepts_wallets",)

    def act_on(self, event: dict[str, Any]) -> None:
        event["data"]["bank_code"].lower()
        super().act_on(event)


class CrashesOnEmoji(Receiver):
    """Stores text in a column without 4-byte characters, as `utf8` was in MySQL."""

    fails = ("accepts_any_text",)

    def act_on(self, event: dict[str, Any]) -> None:
        if max(json.dumps(event, ensure_ascii=False)) > "\uffff":
            raise ValueError("Incorrect string value")
        super().act_on(event)
