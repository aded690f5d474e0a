"""Piccolo's configuration, for its command line and its engine finder."""

from piccolo.conf.apps import AppRegistry

from sandbox.infrastructure.db.engine import ENGINE

DB = ENGINE
APP_REGISTRY = AppRegistry(apps=["sandbox.infrastructure.db.piccolo_app"])
