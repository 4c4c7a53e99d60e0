"""Replacing auto-increment keys in a database file that exists, once, before it is tracked."""

from .migration import MigratedKeys, MigratedTable, migrate_keys

__all__ = ["MigratedKeys", "MigratedTable", "migrate_keys"]
