"""What a program needs that has the service inside itself, in one place. See docs/embedding.md."""

from __future__ import annotations

from sharedlog_service.api.context import Context
from sharedlog_service.api.schema import SharedSyncLogMutation, SharedSyncLogQuery, build_schema
from sharedlog_service.api.wire import SCALARS
from sharedlog_service.grants import EVERYTHING, USUAL, Grant, Scope
from sharedlog_service.settings import PUBLIC_RATES, Issuer, Limits, Policy, Rates, Settings
from sharedlog_service.web.app import create_app
from sharedlog_service.web.service import Authenticate, Service

__all__ = [
    "EVERYTHING",
    "PUBLIC_RATES",
    "SCALARS",
    "USUAL",
    "Authenticate",
    "Context",
    "Grant",
    "Issuer",
    "Limits",
    "Policy",
    "Rates",
    "Scope",
    "Service",
    "Settings",
    "SharedSyncLogMutation",
    "SharedSyncLogQuery",
    "build_schema",
    "create_app",
]
