"""What the two devices do to the same rows while both are offline.

Each function is run as it stands here, and shown as it stands here. Its first word says on
which device; in each pair the first one happens earlier.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .models import Country, Language, Note, Region

Write = Callable[[], object]
Look = Callable[[], str]

TUSCANY: Sequence[str] = [
    "IT-52",
    "IT-AR",
    "IT-FI",
    "IT-GR",
    "IT-LI",
    "IT-LU",
    "IT-MS",
    "IT-PI",
    "IT-PO",
    "IT-PT",
    "IT-SI",
]


@dataclass(frozen=True, slots=True)
class Edit:
    """Two writes that meet. `rule` says what must come of it; `look` reads what came."""

    title: str
    earlier: Write
    later: Write
    rule: str
    look: Look


def laptop_writes_a_note() -> None:
    Note.create(country="IS", text="Hot springs!")


def phone_writes_a_note() -> None:
    Note.create(country="IS", text="Whales at 10:00")


def notes() -> str:
    found = Note.select().where(Note.country == "IS")
    return f"{found.count()} notes"


def laptop_adds_a_capital() -> None:
    Country.set_by_id("IS", {"capital": "Reykjavík"})


def phone_changes_a_name() -> None:
    Country.set_by_id("IS", {"name": "Ísland"})


def iceland() -> str:
    country = Country.get_by_id("IS")
    return f"{country.name}, {country.capital}"


def phone_renames_czechia() -> None:
    country = Country.get_by_id("CZ")
    country.name = "Česko"
    country.save()


def laptop_renames_czechia() -> None:
    country = Country.get_by_id("CZ")
    country.name = "Czech Republic"
    country.save()


def czechia() -> str:
    return str(Country.get_by_id("CZ").name)


def laptop_deletes_klingon() -> None:
    Language.delete_by_id("tlh")


def phone_renames_klingon() -> None:
    Language.set_by_id("tlh", {"name": "tlhIngan Hol"})


def klingon() -> str:
    found = Language.get_or_none(Language.code == "tlh")
    return "not there" if found is None else str(found.name)


def laptop_creates_dothraki() -> None:
    Language.create(code="qdo", name="Dothraki", kind="fictional")


def phone_creates_dothraki() -> None:
    Language.create(code="qdo", name="Lekh Dothraki", kind="constructed")


def dothraki() -> str:
    found = [f"{row.name}, {row.kind}" for row in Language.select().where(Language.code == "qdo")]
    return "; ".join(found)


def laptop_marks_the_extinct() -> None:
    extinct = Language.kind == "extinct"
    marked = Language.name.concat(" †")
    Language.update(name=marked).where(extinct).execute()


def phone_renames_dalmatian() -> None:
    Language.set_by_id("dlm", {"name": "Dalmatic"})


def extinct() -> str:
    marked = Language.select().where(Language.name.endswith(" †")).count()
    return f"{marked} marked, {Language.get_by_id('dlm').name}"


def phone_deletes_tuscany() -> None:
    Region.delete_by_id("IT-52")  # ON DELETE CASCADE: its provinces, too


def laptop_renames_florence() -> None:
    Region.set_by_id("IT-FI", {"name": "Florence"})


def tuscany() -> str:
    found = Region.select().where(Region.code.in_(TUSCANY)).count()
    return f"{found} of {len(TUSCANY)} there"


EDITS = (
    Edit(
        "Both add rows (their keys are made on the device and never clash)",
        laptop_writes_a_note,
        phone_writes_a_note,
        "both rows are kept",
        notes,
    ),
    Edit(
        "Different fields of one row",
        laptop_adds_a_capital,
        phone_changes_a_name,
        "both fields are kept",
        iceland,
    ),
    Edit(
        "The same field of one row",
        phone_renames_czechia,
        laptop_renames_czechia,
        "the later write wins",
        czechia,
    ),
    Edit(
        "One deletes a row, the other edits it",
        laptop_deletes_klingon,
        phone_renames_klingon,
        "a deletion stands against a later edit",
        klingon,
    ),
    Edit(
        "Both create a row with the same key",
        laptop_creates_dothraki,
        phone_creates_dothraki,
        "one row, each field by the later write",
        dothraki,
    ),
    Edit(
        "One updates many rows by an expression; the other edits one of them",
        laptop_marks_the_extinct,
        phone_renames_dalmatian,
        "recorded and decided row by row",
        extinct,
    ),
    Edit(
        "One deletes a region, which cascades; the other edits a province of it",
        phone_deletes_tuscany,
        laptop_renames_florence,
        "the cascade is shared, a deletion stands",
        tuscany,
    ),
)


def device_of(write: Write) -> str:
    """The name of the device that a write happens on."""
    return write.__name__.partition("_")[0]


def code_of(write: Write) -> str:
    """The statements of a write, as they stand in this file."""
    lines = inspect.getsource(write).splitlines()[1:]
    return textwrap.dedent("\n".join(lines))
