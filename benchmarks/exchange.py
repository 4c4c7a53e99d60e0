"""Pushing and pulling: a real client, real HTTP, the durable service; as shares of the bare route.

Everything that is new is exchanged in batches of the client's default size. The limit does
the same bytes in batches of that size: for a push orjson, one POST, `executemany`, a commit;
for a pull a select, orjson, and on the client orjson and `executemany` with a commit.
Limit and client take turns; each share is of the same round.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import batched
from pathlib import Path
from typing import Any

import orjson
from sharedlog.sync import BATCH_SIZE

from .devices import Device, raw_file
from .figures import Figure, middle, seconds
from .records import INSERT, as_change, as_row, records
from .service import BareRoute, Service
