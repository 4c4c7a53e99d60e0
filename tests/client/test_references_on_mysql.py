"""References that are equal to what they refer to only by a collation of MySQL, which is what its
texts have by default: they refer to it on every MySQL device."""

from __future__ import annotations

from typing import Any

import peewee
import pytest

from sharedlog import MemorySharedLog, SyncModel

from .conftest import OpenDevice
from .devices import Device

KEEPING = (None, "RESTRICT")

COLLATIONS = {
    "utf8mb4_general_ci": "ÁCME ",
    "utf8mb4_unicode_ci": "ácme  ",
    "utf8mb4_nopad_bin": None,
    "utf8mb4_bin": "acme ",
}
"""With another text that is equal to `acme`."""


def models(on_delete: str | None, collation: str, beside: bool = False) -> list[Any]:
    class Firm(SyncModel):
        id: Any = peewee.CharField(primary_key=True, collation=collation)
        name: Any = peewee.CharField(unique=True, null=True, collation=collation)

        class Meta:
            table_name = "firm"

    class Person(SyncModel):
        id: Any = peewee.CharField(primary_key=True)
        firm = peewee.ForeignKeyField(
            Firm,
            field="name" if beside else "id",
            null=True,
            on_delete=on_delete,
            collation=collation,
        )

        class Meta:
            table_name = "person"

    return [Firm, Person]


class Fleet:
    def __init__(self, open_device: OpenDevice, some: list[Any], size: int) -> None:
        self.firm, self.person = some
        log = MemorySharedLog()
        self.devices = [open_device(some, where="mysql", shared_log=log) for _ in range(size)]

    def found(self, device: Device, name: str) -> None:
        with device:
            self.firm.create(id=name, name=name)

    def close(self, device: Device) -> None:
        with device:
            self.firm.delete().execute()

    def hire(self, device: Device, id: str, firm: str) -> None:
        with device:
            self.person.create(id=id, firm=firm)

    def sync(self, *order: int) -> None:
        for n in order or [*range(len(self.devices))] * 4:
            with self.devices[n]:
                self.devices[n].sync.sync()

    def firms(self, device: Device) -> list[str]:
        with device:
            return sorted(firm.id for firm in self.firm.select())

    def people(self, device: Device) -> list[tuple[str, str | None]]:
        with device:
            return sorted(self.person.select(self.person.id, self.person.firm).tuples())

    def parked(self, device: Device) -> list[tuple[Any, ...]]:
        with device:
            return sorted((row.collection, row.pk, row.code) for row in device.sync.parked())

    def check(self, people: list[tuple[str, str | None]], firms: list[str], parked: int) -> None:
        self.sync()
        for _ in range(2):
            for device in self.devices:
                assert self.people(device) == people
                assert self.firms(device) == firms
                assert len(self.parked(device)) == parked, self.parked(device)
                with device:
                    device.sync.reset()
                    device.sync.sync()


Many = Any


@pytest.fixture
def fleet(open_device: OpenDevice) -> Many:
    def made(
        on_delete: str | None = None,
        collation: str = "utf8mb4_general_ci",
        size: int = 2,
        beside: bool = False,
    ) -> Fleet:
        return Fleet(open_device, models(on_delete, collation, beside), size)

    return made


@pytest.mark.parametrize(
    ("collation", "written", "beside"),
    [(*said, bool(number % 2)) for number, said in enumerate(COLLATIONS.items())],
)
def test_a_reference_in_other_letters(
    collation: str, written: str | None, beside: bool, fleet: Many
) -> None:
    some: Fleet = fleet(collation=collation, beside=beside)
    one = some.devices[0]
    some.found(one, "acme")
    if written is not None:
        some.hire(one, "ann", written)
        some.check([("ann", written)], ["acme"], parked=0)
    elif "nopad" in collation:
        with pytest.raises(peewee.IntegrityError):
            some.hire(one, "ann", "acme ")


@pytest.mark.parametrize(("on_delete", "order"), [("RESTRICT", (0, 1)), ("CASCADE", (1, 0))])
def test_a_parent_deleted_while_it_gets_a_child(
    on_delete: str | None, order: tuple[int, int], fleet: Many
) -> None:
    some: Fleet = fleet(on_delete)
    one, two = some.devices
    some.found(one, "acme")
    some.sync()
    some.close(one)
    some.hire(two, "ann", "ACMÉ")
    some.sync(*order)
    if on_delete in KEEPING:
        some.check([("ann", "ACMÉ")], ["acme"], parked=0)
    elif on_delete == "CASCADE":
        some.check([], [], parked=1)
    else:
        some.check([("ann", None)], [], parked=0)


@pytest.mark.parametrize(("on_delete", "beside"), [("CASCADE", False), ("RESTRICT", True)])
def test_a_parent_that_is_replaced_while_it_has_children(
    beside: bool, on_delete: str | None, fleet: Many
) -> None:
    some: Fleet = fleet(on_delete, beside=beside)
    one, two = some.devices
    some.found(one, "acme")
    some.sync()
    some.hire(two, "ann", "Acme")
    some.close(one)
    some.found(one, "ACMÉ")
    some.check([("ann", "Acme")], ["ACMÉ"], parked=0)


@pytest.mark.parametrize("on_delete", ["CASCADE", "SET NULL"])
def test_what_the_database_does_to_children_is_recorded(on_delete: str, fleet: Many) -> None:
    some: Fleet = fleet(on_delete)
    one = some.devices[0]
    some.found(one, "acme")
    some.hire(one, "ann", "ÁCME")
    some.sync()
    some.close(one)
    some.check([("ann", None)] if on_delete == "SET NULL" else [], [], parked=0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_two_parents_that_are_one_to_the_collation(order: tuple[int, ...], fleet: Many) -> None:
    """Their children stand everywhere."""
    some: Fleet = fleet(size=3)
    one, two, _ = some.devices
    some.found(one, "acme")
    some.hire(one, "ann", "Acme")
    some.found(two, "ACMÉ")
    some.hire(two, "bob", "ACMÉ")
    some.sync(*order)
    some.check([("ann", "Acme"), ("bob", "ACMÉ")], ["acme"], parked=1)
