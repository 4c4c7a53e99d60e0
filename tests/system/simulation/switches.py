"""What the library can do, or cannot yet: a world tries only what is switched on."""

PLACEMENT = True
"""What stands in the tables is as docs/protocol.md says. (Else nothing is unique, and whoever has a
deleted parent is parked.)"""

EDITIONS = True
"""Devices that run an older edition of the application for a while, and then upgrade."""

TRIGGERS = True
"""`Sync(capture="triggers")`."""

FORKS = False
"""Copied and restored database files of devices."""
