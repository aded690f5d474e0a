"""Calls of the API: some that a `psp` command can make, and some that none can."""

from typing import Any

TIME = "2030-01-01T00:00:00Z"
ID = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"
OTHER_ID = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b78"
PAYOUT = {
    "merchant_reference": "INV-1001",
    "amount": "1500.00",
    "dest_type": "BANK",
    "bank_code": "HBL",
    "account_number": "12345678900001",
    "account_title": "AYESHA KHAN",
}
BANK = {"dest_type": "BANK", "bank_code": "MCB", "account_number": "12345678900001"}
WALLET = {"dest_type": "WALLET", "wallet_code": "JAZZCASH", "account_number": "03001234567"}
FILTERS = [
    {"field": "data.amount", "op": "gte", "value": 1000},
    {"field": "data.amount", "op": "lte", "value": "1000.50"},
    {"field": "data.bank_code", "op": "in", "value": ["HBL", "it's", 1, None]},
    {"field": "data.merchant_reference", "op": "prefix", "value": "a 'b' $c"},
    {"field": "data.metadata.order", "op": "eq", "value": "17"},
    {"field": "data.metadata.order", "op": "ne", "value": " 17 "},
    {"field": "data.failure_code", "op": "exists"},
    {"field": "data.failure_code", "op": "exists", "value": False},
]
ENDPOINT = {
    "url": "https://example.com/hooks?a=1&b=2",
    "event_types": ["payout.*", "bulk_credit.completed"],
    "filters": FILTERS,
    "signing": "custom",
    "custom_signing": {"header": "X-Sign", "algorithm": "sha256", "encoding": "hex", "template": "{body}"},
    "signing_time": "merchant",
    "retry_profile": "fast",
    "ordered": True,
    "rate_limit": 5,
    "max_in_flight": 2,
    "description": "it's a test",
}
WEBHOOK_FAULT = {"target": "webhooks", "kind": "delay", "milliseconds": 5}
LIMITS = {"probability": 0.5, "count": 3, "ttl_seconds": 60, "seed": 7}
EXPRESSIBLE: list[tuple[str, Any]] = [
    ("create_payout", PAYOUT | {"metadata": {"order": "7", "a b": "x=y"}, "requires_approval": True, "currency": "PKR"}),
    ("create_payout", PAYOUT | {"metadata": {}, "requires_approval": False, "account_title": "--json"}),
    ("create_payout", {"merchant_reference": "-r", "amount": "1.00", **WALLET}),
    ("create_payouts", {"payouts": [PAYOUT | {"metadata": {"a": "b"}, "requires_approval": True}, PAYOUT]}),
    ("simulate_payout", {"status": "FAILED", "failure_code": "TIMEOUT"}),
    ("verify_account", WALLET),
    ("create_user", {"name": "-n"}),
    ("create_user", {"name": "Ayesha", "vendor_user_id": "0742", "destination": WALLET}),
    ("change_user", {"name": "O'Neil", "external_id": "b"}),
    ("change_user", {"destination": WALLET}),
    ("create_user_transaction", {"type": "SPENT", "amount": "5.00", "reference": "a\u200cb"}),
    ("reconcile_sales", [{"sale_id": ID, "status": "DECLINED"}, {"sale_id": OTHER_ID, "status": "APPROVED"}]),
    ("set_source", {"url": None}),
    ("set_source", {"url": None, "headers": {}}),
    ("create_webhook_endpoint", ENDPOINT),
    ("create_webhook_endpoint", {"url": "https://example.com", "ordered": False, "filters": []}),
    ("change_webhook_endpoint", ENDPOINT | {"status": "DISABLED"}),
    ("preview_webhook_endpoint", {"event_types": ["payout.failed"]}),
    ("rotate_webhook_secret", {}),
    ("explain_webhook_signature", {"id": "evt-1", "body": "{}"}),
    ("recover_webhook_endpoint", {
        "since": TIME, "until": "2030-01-02T00:00:00Z", "which": "all", "event_types": ["*"], "dry_run": False,
    }),
    ("create_receiver_test", {"url": "http://127.0.0.1:9/x", "secret": "s", "signing": "github"}),
    ("freeze_clock", {}),
    ("advance_clock", {"to": TIME}),
    ("advance_clock", {"seconds": 0.5}),
    ("take_snapshot", {}),
    ("explain_scenario", {
        "merchant_reference": "a", "amount": "5.00", **WALLET, "user_id": ID, "metadata": {"order": "7"},
        "requires_approval": False, "currency": "PKR",
        "rule": {"name": "a", "match": {"suffix": "1"}, "steps": [{"to": "PROCESSING"}]},
    }),
    ("create_fault", WEBHOOK_FAULT | LIMITS | {"match": {"event_type": "payout.*", "endpoint_id": ID}}),
    ("create_fault", {"target": "api", "kind": "error", "status": 500, "match": {"method": "POST", "reference": "x"}}),
    ("create_fault", {"target": "api", "kind": "latency", "milliseconds": 5, "sigma": 0.5, "match": {}}),
    ("change_settings", {"review_threshold": None, "rate_limit": None, "approvals_expire_after": None}),
    ("create_key", {"role": "admin"}),
    ("create_merchant", {
        "name": "a", "opening_balance": "5.00", "webhook_url": "http://127.0.0.1:9", "seed": 1, "frozen_at": TIME,
    }),
]  # fmt: skip
INEXPRESSIBLE: list[tuple[str, Any]] = [
    ("create_payout", PAYOUT | {"account_title": None}),
    ("create_payout", PAYOUT | {"amount": 1500}),
    ("create_payout", PAYOUT | {"new_field": "x"}),
    ("create_payout", PAYOUT | {"requires_approval": 1}),
    ("create_payout", PAYOUT | {"metadata": {"a=b": "c"}}),
    ("create_payout", PAYOUT | {"account_title": "a\nb"}),
    ("create_payout", PAYOUT | {"account_title": "a\x9bb"}),
    ("create_payout", PAYOUT | {"dest_type": "WALLET"}),
    ("create_payout", {name: value for name, value in PAYOUT.items() if name != "merchant_reference"}),
    ("change_user", {"destination": None}),
    ("change_user", {"destination": BANK | {"new_field": "x"}}),
    ("change_user", {}),
    ("set_source", {"url": None, "headers": {"a": "b"}}),
    ("create_webhook_endpoint", ENDPOINT | {"event_types": []}),
    ("change_webhook_endpoint", {"rate_limit": None}),
    ("explain_webhook_signature", {"body": {"type": "payout.succeeded"}}),
    ("advance_clock", {"seconds": 1, "to": TIME}),
    ("create_fault", WEBHOOK_FAULT | {"a=b": 1}),
    ("create_fault", WEBHOOK_FAULT | {"match": {"new_field": "x"}}),
    ("create_merchant", {"name": "a", "opening_balance": 0}),
    ("reconcile_sales", [{"sale_id": ID, "status": "APPROVED", "new_field": "x"}]),
    ("reconcile_sales", [{"sale_id": ID, "status": "OTHER"}]),
]
