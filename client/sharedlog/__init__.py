"""Offline-first, multi-device sync for Peewee applications."""
