"""Sales, their payments and their reconciliation."""

from sandbox.console.routing import Pages

pages = Pages()
