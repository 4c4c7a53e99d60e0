"""One value in three databases: it arrives as it is, or its row is parked and says why."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, SyncModel

from .devices import Device
from .kinds import (
    DATETIMES,
    EAST,
    EXACT,
    FLOATS,
    INFINITE,
    INTEGERS,
    JSONS,
    KINDS,
    TEXTS,
    UTC,
    Kind,
)
from .servers import Server
from .test_values import suppressed

Fleet = Mapping[str, Device]

EVERYWHERE = [kind for kind in KINDS if kind.name not in ("Any", "Moment")]
"""Of columns without a type SQLite alone has any."""

NUL = [text for text in TEXTS if "\0" in text]
LONG = [text for text in TEXTS if len(text) > 60_000]
FINE = [moment for moment in DATETIMES if moment.microsecond]
ZONED = [moment for moment in DATETIMES if moment.tzinfo]
BEYOND = [number for number in INTEGERS if not -(2**31) <= number < 2**31]
HUGE = [number for number in FLOATS if abs(number) > 1e38 or 0 < abs(number) < 1e-38]
LONG_FLOATS = [2.0**63, 1 / 3]
LARGE = [number for number in map(Decimal, EXACT) if abs(number) >= 10**10]
ZONED_TIMES = [datetime.time(12, 30, tzinfo=UTC), datetime.time(12, 30, 0, 1, tzinfo=EAST)]
NUL_JSON = [value for value in JSONS if "\\u0000" in json.dumps(value)]

NO_PLACE: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "postgres": {
        "Text": NUL,
        "Char": [*NUL, *LONG],
        "Integer": BEYOND,
        "SmallInteger": BEYOND,
        "Subclass": BEYOND,
        "Float": [*HUGE, *LONG_FLOATS],
        "Decimal": LARGE,
        "DateTime": ZONED,
        "Time": ZONED_TIMES,
        "JSON": NUL_JSON,
    },
    "mysql": {
        "Text": LONG,
        "Char": LONG,
        "Integer": BEYOND,
        "SmallInteger": BEYOND,
        "Subclass": BEYOND,
        "Float": [*HUGE, *LONG_FLOATS, *INFINITE],
        "Double": INFINITE,
        "Decimal": LARGE,
        "DateTime": [*FINE, *ZONED],
        "Time": [datetime.time(23, 59, 59, 999_999), *ZONED_TIMES],
    },
    "sqlite": {},
}
"""Values that Peewee's columns cannot hold there: no other value may be parked."""


class Row(SyncModel):
    key = peewee.CharField(primary_key=True)


for _kind in EVERYWHERE:
    Row._meta.add_field(_kind.name.lower(), _kind.field(null=True, default=None))
Row.validate_model()


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Fleet]:
    log = MemorySharedLog()
    path: Path = tmp_path_factory.mktemp("values") / "sqlite.db"
    devices = {"sqlite": Device(path, [Row], shared_log=log)}
    for where in ("postgres", "postgres by triggers", "mysql"):
        server: Server = request.getfixturevalue(where.partition(" ")[0])
        devices[where] = Device(
            Path(where),
            [Row],
            shared_log=log,
            database=server.database(server.place()),
            recorder="triggers" if "triggers" in where else "signals",
        )
    yield devices
    for device in devices.values():
        device.close()


def sync(fleet: Fleet) -> None:
    for device in (*fleet.values(), *fleet.values()):
        with device:
            device.sync.sync()


def hashes(device: Device) -> Mapping[str, str]:
    with device:
        found = device.sync.digest(rows=True).collections["row"].hashes or {}
    return {json.loads(pk): digest for pk, digest in found.items()}


def parked(device: Device) -> Mapping[str, str]:
    with device:
        return {row.pk: row.code for row in device.sync.parked()}


@pytest.fixture
def written(fleet: Fleet) -> Iterator[dict[str, tuple[str, Any]]]:
    """Where each key was written, and with which value. All of it is deleted afterwards."""
    keys: dict[str, tuple[str, Any]] = {}
    yield keys
    for device in fleet.values():
        with device:
            for row in device.sync.parked():
                device.sync.discard(row)
    sync(fleet)
    with fleet["sqlite"]:
        Row.delete().execute()
    sync(fleet)


@pytest.mark.parametrize("kind", EVERYWHERE, ids=str)
def test_a_value_arrives_in_every_database_or_is_parked(
    kind: Kind, fleet: Fleet, written: dict[str, tuple[str, Any]]
) -> None:
    for where, device in fleet.items():
        for number, value in enumerate([*kind.values, *kind.odd]):
            key = f"{where} {number}"
            with device, suppressed():  # what the database itself refuses
                Row.create(key=key, **{kind.name.lower(): value})
                written[key] = where, value
    sync(fleet)

    held = {where: hashes(device) for where, device in fleet.items()}
    for where, device in fleet.items():
        waiting, here = parked(device), held[where]
        assert set(waiting.values()) <= {"VALUE_UNFIT"}
        assert waiting.keys() | here.keys() == written.keys()
        for key, (origin, value) in written.items():
            if key in here:
                assert here[key] == held[origin][key], (where, value)
            elif not any(value is odd for odd in kind.odd):
                no_place = NO_PLACE[where.partition(" ")[0]].get(kind.name, ())
                assert value in no_place, (where, value)
