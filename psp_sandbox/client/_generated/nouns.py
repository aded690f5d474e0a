"""The nouns of both clients. Each is loaded when it is first used."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from functools import cached_property
from typing import TYPE_CHECKING

from psp_sandbox.client._generated.async_root import AsyncRootApi
from psp_sandbox.client._generated.root import RootApi

if TYPE_CHECKING:
    from psp_sandbox.client._extended import AsyncClockApi, AsyncPayoutsApi, ClockApi, PayoutsApi
    from psp_sandbox.client._generated.aggregator import AggregatorApi
    from psp_sandbox.client._generated.async_aggregator import AsyncAggregatorApi
    from psp_sandbox.client._generated.async_balance import AsyncBalanceApi
    from psp_sandbox.client._generated.async_bulk_credits import AsyncBulkCreditsApi
    from psp_sandbox.client._generated.async_deliveries import AsyncDeliveriesApi
    from psp_sandbox.client._generated.async_directory import AsyncDirectoryApi
    from psp_sandbox.client._generated.async_events import AsyncEventsApi
    from psp_sandbox.client._generated.async_faults import AsyncFaultsApi
    from psp_sandbox.client._generated.async_keys import AsyncKeysApi
    from psp_sandbox.client._generated.async_listeners import AsyncListenersApi
    from psp_sandbox.client._generated.async_merchants import AsyncMerchantsApi
    from psp_sandbox.client._generated.async_receiver_tests import AsyncReceiverTestsApi
    from psp_sandbox.client._generated.async_requests import AsyncRequestsApi
    from psp_sandbox.client._generated.async_sales import AsyncSalesApi
    from psp_sandbox.client._generated.async_scenarios import AsyncScenariosApi
    from psp_sandbox.client._generated.async_service import AsyncServiceApi
    from psp_sandbox.client._generated.async_settings import AsyncSettingsApi
    from psp_sandbox.client._generated.async_snapshots import AsyncSnapshotsApi
    from psp_sandbox.client._generated.async_users import AsyncUsersApi
    from psp_sandbox.client._generated.async_vendor_feed import AsyncVendorFeedApi
    from psp_sandbox.client._generated.async_webhook_endpoints import AsyncWebhookEndpointsApi
    from psp_sandbox.client._generated.async_world import AsyncWorldApi
    from psp_sandbox.client._generated.balance import BalanceApi
    from psp_sandbox.client._generated.bulk_credits import BulkCreditsApi
    from psp_sandbox.client._generated.deliveries import DeliveriesApi
    from psp_sandbox.client._generated.directory import DirectoryApi
    from psp_sandbox.client._generated.events import EventsApi
    from psp_sandbox.client._generated.faults import FaultsApi
    from psp_sandbox.client._generated.keys import KeysApi
    from psp_sandbox.client._generated.listeners import ListenersApi
    from psp_sandbox.client._generated.merchants import MerchantsApi
    from psp_sandbox.client._generated.receiver_tests import ReceiverTestsApi
    from psp_sandbox.client._generated.requests import RequestsApi
    from psp_sandbox.client._generated.sales import SalesApi
    from psp_sandbox.client._generated.scenarios import ScenariosApi
    from psp_sandbox.client._generated.service import ServiceApi
    from psp_sandbox.client._generated.settings import SettingsApi
    from psp_sandbox.client._generated.snapshots import SnapshotsApi
    from psp_sandbox.client._generated.users import UsersApi
    from psp_sandbox.client._generated.vendor_feed import VendorFeedApi
    from psp_sandbox.client._generated.webhook_endpoints import WebhookEndpointsApi
    from psp_sandbox.client._generated.world import WorldApi


class Nouns(RootApi):
    """The nouns of Client, and its own methods."""

    @cached_property
    def aggregator(self) -> "AggregatorApi":
        """Balances per user, calculated from a vendor's feed of transactions."""
        from psp_sandbox.client._generated.aggregator import AggregatorApi

        return AggregatorApi(self._caller)

    @cached_property
    def balance(self) -> "BalanceApi":
        """The merchant's balance and its ledger entries."""
        from psp_sandbox.client._generated.balance import BalanceApi

        return BalanceApi(self._caller)

    @cached_property
    def bulk_credits(self) -> "BulkCreditsApi":
        """Credit many wallets from one CSV file."""
        from psp_sandbox.client._generated.bulk_credits import BulkCreditsApi

        return BulkCreditsApi(self._caller)

    @cached_property
    def clock(self) -> "ClockApi":
        """Freeze, advance and resume the merchant's clock."""
        from psp_sandbox.client._extended import ClockApi

        return ClockApi(self._caller)

    @cached_property
    def deliveries(self) -> "DeliveriesApi":
        """Deliveries of webhooks and their attempts."""
        from psp_sandbox.client._generated.deliveries import DeliveriesApi

        return DeliveriesApi(self._caller)

    @cached_property
    def directory(self) -> "DirectoryApi":
        """Banks and wallets that payouts can go to."""
        from psp_sandbox.client._generated.directory import DirectoryApi

        return DirectoryApi(self._caller)

    @cached_property
    def events(self) -> "EventsApi":
        """The log of events, each with its webhook deliveries."""
        from psp_sandbox.client._generated.events import EventsApi

        return EventsApi(self._caller)

    @cached_property
    def faults(self) -> "FaultsApi":
        """Make the API or webhooks misbehave."""
        from psp_sandbox.client._generated.faults import FaultsApi

        return FaultsApi(self._caller)

    @cached_property
    def keys(self) -> "KeysApi":
        """The merchant's API keys."""
        from psp_sandbox.client._generated.keys import KeysApi

        return KeysApi(self._caller)

    @cached_property
    def listeners(self) -> "ListenersApi":
        """Receive webhooks on a machine that the sandbox cannot reach. `psp listen` does it."""
        from psp_sandbox.client._generated.listeners import ListenersApi

        return ListenersApi(self._caller)

    @cached_property
    def merchants(self) -> "MerchantsApi":
        """Create and delete merchants. Each has its own isolated data and clock."""
        from psp_sandbox.client._generated.merchants import MerchantsApi

        return MerchantsApi(self._caller)

    @cached_property
    def payouts(self) -> "PayoutsApi":
        """Create payouts, follow them, and approve, reject or cancel them. Also pays for sales."""
        from psp_sandbox.client._extended import PayoutsApi

        return PayoutsApi(self._caller)

    @cached_property
    def receiver_tests(self) -> "ReceiverTestsApi":
        """Test your webhook receiver for classic mistakes."""
        from psp_sandbox.client._generated.receiver_tests import ReceiverTestsApi

        return ReceiverTestsApi(self._caller)

    @cached_property
    def requests(self) -> "RequestsApi":
        """The journal of API calls."""
        from psp_sandbox.client._generated.requests import RequestsApi

        return RequestsApi(self._caller)

    @cached_property
    def sales(self) -> "SalesApi":
        """Approve or decline sales."""
        from psp_sandbox.client._generated.sales import SalesApi

        return SalesApi(self._caller)

    @cached_property
    def scenarios(self) -> "ScenariosApi":
        """An example of each scenario, and the failure codes."""
        from psp_sandbox.client._generated.scenarios import ScenariosApi

        return ScenariosApi(self._caller)

    @cached_property
    def service(self) -> "ServiceApi":
        """Health, metrics and this document."""
        from psp_sandbox.client._generated.service import ServiceApi

        return ServiceApi(self._caller)

    @cached_property
    def settings(self) -> "SettingsApi":
        """A merchant's settings."""
        from psp_sandbox.client._generated.settings import SettingsApi

        return SettingsApi(self._caller)

    @cached_property
    def snapshots(self) -> "SnapshotsApi":
        """Save a merchant's state and restore it."""
        from psp_sandbox.client._generated.snapshots import SnapshotsApi

        return SnapshotsApi(self._caller)

    @cached_property
    def users(self) -> "UsersApi":
        """A merchant's users and their wallets."""
        from psp_sandbox.client._generated.users import UsersApi

        return UsersApi(self._caller)

    @cached_property
    def vendor_feed(self) -> "VendorFeedApi":
        """The sandbox's own feed of users' transactions."""
        from psp_sandbox.client._generated.vendor_feed import VendorFeedApi

        return VendorFeedApi(self._caller)

    @cached_property
    def webhook_endpoints(self) -> "WebhookEndpointsApi":
        """The URLs to which webhooks are delivered."""
        from psp_sandbox.client._generated.webhook_endpoints import WebhookEndpointsApi

        return WebhookEndpointsApi(self._caller)

    @cached_property
    def world(self) -> "WorldApi":
        """Move a merchant's entire state in one file."""
        from psp_sandbox.client._generated.world import WorldApi

        return WorldApi(self._caller)


class AsyncNouns(AsyncRootApi):
    """The nouns of AsyncClient, and its own methods."""

    @cached_property
    def aggregator(self) -> "AsyncAggregatorApi":
        """Balances per user, calculated from a vendor's feed of transactions."""
        from psp_sandbox.client._generated.async_aggregator import AsyncAggregatorApi

        return AsyncAggregatorApi(self._caller)

    @cached_property
    def balance(self) -> "AsyncBalanceApi":
        """The merchant's balance and its ledger entries."""
        from psp_sandbox.client._generated.async_balance import AsyncBalanceApi

        return AsyncBalanceApi(self._caller)

    @cached_property
    def bulk_credits(self) -> "AsyncBulkCreditsApi":
        """Credit many wallets from one CSV file."""
        from psp_sandbox.client._generated.async_bulk_credits import AsyncBulkCreditsApi

        return AsyncBulkCreditsApi(self._caller)

    @cached_property
    def clock(self) -> "AsyncClockApi":
        """Freeze, advance and resume the merchant's clock."""
        from psp_sandbox.client._extended import AsyncClockApi

        return AsyncClockApi(self._caller)

    @cached_property
    def deliveries(self) -> "AsyncDeliveriesApi":
        """Deliveries of webhooks and their attempts."""
        from psp_sandbox.client._generated.async_deliveries import AsyncDeliveriesApi

        return AsyncDeliveriesApi(self._caller)

    @cached_property
    def directory(self) -> "AsyncDirectoryApi":
        """Banks and wallets that payouts can go to."""
        from psp_sandbox.client._generated.async_directory import AsyncDirectoryApi

        return AsyncDirectoryApi(self._caller)

    @cached_property
    def events(self) -> "AsyncEventsApi":
        """The log of events, each with its webhook deliveries."""
        from psp_sandbox.client._generated.async_events import AsyncEventsApi

        return AsyncEventsApi(self._caller)

    @cached_property
    def faults(self) -> "AsyncFaultsApi":
        """Make the API or webhooks misbehave."""
        from psp_sandbox.client._generated.async_faults import AsyncFaultsApi

        return AsyncFaultsApi(self._caller)

    @cached_property
    def keys(self) -> "AsyncKeysApi":
        """The merchant's API keys."""
        from psp_sandbox.client._generated.async_keys import AsyncKeysApi

        return AsyncKeysApi(self._caller)

    @cached_property
    def listeners(self) -> "AsyncListenersApi":
        """Receive webhooks on a machine that the sandbox cannot reach. `psp listen` does it."""
        from psp_sandbox.client._generated.async_listeners import AsyncListenersApi

        return AsyncListenersApi(self._caller)

    @cached_property
    def merchants(self) -> "AsyncMerchantsApi":
        """Create and delete merchants. Each has its own isolated data and clock."""
        from psp_sandbox.client._generated.async_merchants import AsyncMerchantsApi

        return AsyncMerchantsApi(self._caller)

    @cached_property
    def payouts(self) -> "AsyncPayoutsApi":
        """Create payouts, follow them, and approve, reject or cancel them. Also pays for sales."""
        from psp_sandbox.client._extended import AsyncPayoutsApi

        return AsyncPayoutsApi(self._caller)

    @cached_property
    def receiver_tests(self) -> "AsyncReceiverTestsApi":
        """Test your webhook receiver for classic mistakes."""
        from psp_sandbox.client._generated.async_receiver_tests import AsyncReceiverTestsApi

        return AsyncReceiverTestsApi(self._caller)

    @cached_property
    def requests(self) -> "AsyncRequestsApi":
        """The journal of API calls."""
        from psp_sandbox.client._generated.async_requests import AsyncRequestsApi

        return AsyncRequestsApi(self._caller)

    @cached_property
    def sales(self) -> "AsyncSalesApi":
        """Approve or decline sales."""
        from psp_sandbox.client._generated.async_sales import AsyncSalesApi

        return AsyncSalesApi(self._caller)

    @cached_property
    def scenarios(self) -> "AsyncScenariosApi":
        """An example of each scenario, and the failure codes."""
        from psp_sandbox.client._generated.async_scenarios import AsyncScenariosApi

        return AsyncScenariosApi(self._caller)

    @cached_property
    def service(self) -> "AsyncServiceApi":
        """Health, metrics and this document."""
        from psp_sandbox.client._generated.async_service import AsyncServiceApi

        return AsyncServiceApi(self._caller)

    @cached_property
    def settings(self) -> "AsyncSettingsApi":
        """A merchant's settings."""
        from psp_sandbox.client._generated.async_settings import AsyncSettingsApi

        return AsyncSettingsApi(self._caller)

    @cached_property
    def snapshots(self) -> "AsyncSnapshotsApi":
        """Save a merchant's state and restore it."""
        from psp_sandbox.client._generated.async_snapshots import AsyncSnapshotsApi

        return AsyncSnapshotsApi(self._caller)

    @cached_property
    def users(self) -> "AsyncUsersApi":
        """A merchant's users and their wallets."""
        from psp_sandbox.client._generated.async_users import AsyncUsersApi

        return AsyncUsersApi(self._caller)

    @cached_property
    def vendor_feed(self) -> "AsyncVendorFeedApi":
        """The sandbox's own feed of users' transactions."""
        from psp_sandbox.client._generated.async_vendor_feed import AsyncVendorFeedApi

        return AsyncVendorFeedApi(self._caller)

    @cached_property
    def webhook_endpoints(self) -> "AsyncWebhookEndpointsApi":
        """The URLs to which webhooks are delivered."""
        from psp_sandbox.client._generated.async_webhook_endpoints import AsyncWebhookEndpointsApi

        return AsyncWebhookEndpointsApi(self._caller)

    @cached_property
    def world(self) -> "AsyncWorldApi":
        """Move a merchant's entire state in one file."""
        from psp_sandbox.client._generated.async_world import AsyncWorldApi

        return AsyncWorldApi(self._caller)
