"""For each API operation, the `psp` command that makes the same call.

A line is a command. If an operation has several lines, the first one that can express the call is shown. A line contains:

* `payouts create`: words of the command;
* `{amount}`: an argument, the value of the path parameter, query parameter or body field of this name;
* `--title {account_title}`: an option, which is left out if the call has no such field; `--bank! {bank_code}`: a required one;
* `{count:integer}`: a field that is not text, with its kind (see `psp_line.py`);
* `{*:set}`: all fields that the line does not name otherwise;
* `dest_type=BANK`: a field that the command sends by itself, so the call must have this value (JSON, or else text);
* `currency?=PKR`: the same, but the call may also omit the field, because this is its default.
"""

from collections.abc import Mapping
from typing import Final

_PAGE: Final = "--limit {limit} --cursor {cursor}"
_DATED: Final = "--created-from {created_from} --created-to {created_to} " + _PAGE
_PAYOUT: Final = (
    "--reference! {merchant_reference} --metadata {metadata:pairs} metadata?={} requires_approval?=false currency?=PKR"
)  # fmt: skip
_BANK: Final = "--bank! {bank_code} dest_type=BANK"
_WALLET: Final = "--wallet! {wallet_code} dest_type=WALLET"
_USER_BANK: Final = (
    "--account! {destination.account_number} --bank! {destination.bank_code} destination.dest_type=BANK"
)  # fmt: skip
_USER_WALLET: Final = (
    "--account! {destination.account_number} --wallet! {destination.wallet_code} destination.dest_type=WALLET"
)  # fmt: skip
_ROUTING: Final = "--events {event_types:list} --filter {filters:filters}"
_ENDPOINT: Final = (
    f"{_ROUTING} --signing {{signing}} --custom-signing {{custom_signing:file=signing.json}} --signing-time {{signing_time}} "
    "--retry-profile {retry_profile} --ordered/--unordered {ordered:flag} --rate-limit {rate_limit:integer} "
    "--max-in-flight {max_in_flight:integer} --description {description}"
)


def _either(start: str, *ends: str) -> str:
    """Return one command line for each ending."""
    return "\n".join(f"{start} {end}" for end in ends)


PSP_COMMANDS: Final[Mapping[str, str]] = {
    # Payouts
    "create_payout": _either(
        "payouts create {amount} {account_number}",
        *(f"{where} {_PAYOUT} --title {{account_title}} --requires-approval {{requires_approval:flag}} --scenario {{scenario}}"
          for where in (_BANK, _WALLET)),
    ),
    "create_payouts": "payouts batch {payouts:file=payouts.csv} --scenario {scenario}",
    "list_payouts": "payouts list --status {status} --dest-type {dest_type} --reference {merchant_reference} "
    f"--user-id {{user_id}} --metadata {{metadata:pairs}} --search {{q}} {_DATED}",
    "get_payout": "payouts get {payout_id} --wait-for! {wait_for} --timeout {timeout}\npayouts get {payout_id}",
    "get_payout_timeline": "payouts timeline {payout_id}",
    "list_payout_actions": "payouts actions {payout_id}",
    "list_payout_requests": f"payouts requests {_PAGE}",
    "approve_payout": "payouts approve {payout_id}",
    "reject_payout": "payouts reject {payout_id}",
    "cancel_payout": "payouts cancel {payout_id}",
    "reinitiate_payout": "payouts reinitiate {payout_id}",
    "simulate_payout": "payouts simulate {payout_id} {status} --failure-code {failure_code}",
    # Balance
    "get_balance": "balance show",
    "list_ledger_entries": f"balance history --payout-id {{payout_id}} --account {{account}} {_DATED}",
    "top_up_balance": "balance top-up {amount}",
    "audit": "audit",
    "get_overview": "overview",
    # Directory
    "get_directory": "directory",
    "verify_account": _either("verify-account {account_number}", _BANK, _WALLET),
    # Users
    "list_users": f"users list --external-id {{external_id}} --search {{q}} {_DATED}",
    "create_user": _either(
        "users create {name} --external-id {external_id} --vendor-user-id {vendor_user_id}", _USER_BANK, _USER_WALLET, ""
    ),
    "create_users": "users batch {users:file=users.csv}",
    "get_user": "users get {user_id}",
    "change_user": _either(
        "users change {user_id} --name {name} --external-id {external_id}", _USER_BANK, _USER_WALLET, ""
    ),
    "get_user_balance": "users balance {user_id}",
    "get_user_summary": "users summary {user_id}",
    "list_user_transactions": f"users transactions {{user_id}} --type {{type}} {_DATED}",
    "create_user_transaction": "users record {user_id} {type} {amount} --reference {reference}",
    "list_wallet_entries": f"users history {{user_id}} --payout-id {{payout_id}} {_DATED}",
    "request_user_payout": "users request {user_id} {amount}",
    # Bulk credit
    "upload_bulk_credit": "bulk-credit {*:file=credits.csv}",
    "list_bulk_credits": f"bulk-credit --list {_PAGE}",
    "get_bulk_credit": "bulk-credit --show! {activity_id}",
    "list_bulk_credit_items": _either(
        f"bulk-credit --items! {{activity_id}} --status {{status}} {_PAGE}", "", "--duplicates duplicates=only"
    ),
    "retry_bulk_credit": "bulk-credit --retry! {activity_id}",
    # Sales
    "create_sale": "sales create {user_id} {brand} {earning}",
    "list_sales": f"sales list --status {{status}} --user-id {{user_id}} {_DATED}",
    "get_sale": "sales get {sale_id}",
    "reconcile_sales": "sales reconcile --approve {APPROVED:repeated} --decline {DECLINED:repeated}",
    "run_advances": "sales run advance",
    "run_finals": "sales run final",
    # Aggregator and vendor feed
    "get_vendor_balance": "aggregator user {user_id}",
    "get_requested_payout": "aggregator requested {user_id}",
    "list_requested_payouts": f"aggregator waiting {_PAGE}",
    "get_source": "aggregator source",
    "set_source": "aggregator source --set! {url} --header {headers:pairs} headers?={}\n"
    "aggregator source --own url=null headers?={}",
    "list_fetches": f"aggregator fetches {_DATED}",
    "list_dead_letters": f"aggregator dead-letters {_DATED}",
    "replay_dead_letters": "aggregator replay",
    # The defaults of the API and of the command differ.
    "list_vendor_transactions": _either(
        "aggregator feed --start-date {startDate} --end-date {endDate} --page {page}", "--limit! {limit}", "--limit 100"
    ),
    # Webhooks
    "list_webhook_endpoints": f"endpoints list {_PAGE}",
    "create_webhook_endpoint": f"endpoints create {{url}} {_ENDPOINT}",
    "get_webhook_endpoint": "endpoints get {endpoint_id}",
    "change_webhook_endpoint": f"endpoints update {{endpoint_id}} --target {{url}} --status {{status}} {_ENDPOINT}",
    "delete_webhook_endpoint": "endpoints delete {endpoint_id}",
    "preview_webhook_endpoint": f"endpoints preview {{endpoint_id}} {_ROUTING} --limit {{limit:integer}}",
    "test_webhook_endpoint": "endpoints test {endpoint_id} {event_type}",
    "rotate_webhook_secret": "endpoints rotate-secret {endpoint_id} --grace-seconds {grace_seconds:integer}",
    "explain_webhook_signature": "endpoints signing-example {endpoint_id} --body {body} --timestamp {timestamp:integer} "
    "--id {id}",
    "recover_webhook_endpoint": "endpoints recover {endpoint_id} --since! {since} --until {until} --which! {which} "
    "--events {event_types:list} --dry-run {dry_run:flag}",
    "list_webhook_deliveries": f"deliveries list --endpoint {{endpoint_id}} --event {{event_id}} --status {{status}} {_DATED}",
    "get_webhook_delivery": "deliveries get {delivery_id}",
    "explain_webhook_delivery": "deliveries explain {delivery_id}",
    "resend_webhook_delivery": "deliveries resend {delivery_id}",
    "list_events": f"events list --payout {{payout_id}} {_DATED}",
    "get_event": "events get {event_id}",
    "stream": "events watch --types {types} --limit {limit} --timeout {timeout}",
    "list_receiver_tests": f"receiver-tests list {_PAGE}",
    "get_receiver_test": "receiver-tests get {test_id}",
    "create_receiver_test": "certify {url} --secret! {secret} --signing {signing} "
    "--custom-signing {custom_signing:file=signing.json} --probe-url {probe_url}",
    # The journal
    "list_requests": "requests list --method {method} --path {path} --status {status} --request-id {request_id} "
    f"--fault {{fault_id}} --text {{q}} {_PAGE}",
    "get_request": "requests get {entry_id}",
    # The world
    "get_clock": "clock show",
    "list_due": "clock due --payout {payout_id} --limit {limit}",
    "freeze_clock": "clock freeze --at {at}",
    "advance_clock": "clock advance --seconds! {seconds:number}\nclock advance --to! {to}",
    "resume_clock": "clock resume",
    "drain": "drain",
    "reset": "reset",
    "list_snapshots": f"snapshots list {_PAGE}",
    "take_snapshot": "snapshots create {name}\nsnapshots create",
    "get_snapshot": "snapshots get {snapshot_id}",
    "restore_snapshot": "snapshots restore {snapshot_id}",
    "delete_snapshot": "snapshots delete {snapshot_id}",
    "export_world": "world export -",
    "import_world": "world import {*:file=world.json}",
    # Scenarios and faults
    "list_scenarios": "scenarios list",
    "get_catalogue": "scenarios catalogue --bank {bank_code}",
    "get_scenario": "scenarios get {rule_id}",
    "create_scenario": "scenarios add {*:file=scenario.json}",
    "replace_scenario": "scenarios replace {rule_id} {*:file=scenario.json}",
    "delete_scenario": "scenarios delete {rule_id}",
    "explain_scenario": _either(
        "scenarios explain {amount} {account_number}",
        *(f"{where} {_PAYOUT} --scenario {{scenario_header}} --user-id {{user_id}} --rule {{rule:file=scenario.json}}"
          for where in (_BANK, _WALLET)),
    ),
    "list_faults": f"faults list {_PAGE}",
    "get_fault": "faults get {fault_id}",
    "create_fault": "faults add {target} {kind} --set {*:set} --method {match.method} --path {match.path} "
    "--reference {match.reference} --key {match.api_key_id} --event-type {match.event_type} --endpoint {match.endpoint_id} "
    "match?={} --probability {probability:number} --count {count:integer} --skip {skip:integer} --ttl {ttl_seconds:number} "
    "--seed {seed:integer}",
    "delete_fault": "faults delete {fault_id}",
    # Settings, keys and merchants
    "get_settings": "settings show",
    "change_settings": "settings set --default-scenario {default_scenario} --review-threshold {review_threshold:text-or-none} "
    "--rate-limit {rate_limit:integer-or-none} --approvals-expire-after {approvals_expire_after:integer-or-none}",
    "list_keys": f"keys list {_PAGE}",
    "create_key": "keys create {role} --name {name}",
    "delete_key": "keys revoke {key_id}",
    "list_merchants": f"merchants list {_PAGE}",
    "create_merchant": "merchants create {name} --opening-balance {opening_balance} --webhook-url {webhook_url} "
    "--seed {seed:integer} --frozen-at {frozen_at}",
    "delete_merchant": "merchants delete {merchant_id}",
}  # fmt: skip

WITHOUT_PSP_COMMAND: Final[Mapping[str, str]] = {
    **dict.fromkeys(("root", "health", "ready", "metrics", "openapi"), "needs no key, and has no command"),
    **dict.fromkeys(
        ("create_listener", "claim_deliveries", "report_results", "delete_listener"), "`psp listen` makes all these calls"
    ),
    "get_receiver_test_junit": "`psp certify --junit` writes it, for the test that it starts",
}
"""Operation → why no command makes exactly this call."""
