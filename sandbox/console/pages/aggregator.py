"""The aggregator: the vendor's data, and what could not be read."""

from sandbox.console.routing import Pages

pages = Pages()
