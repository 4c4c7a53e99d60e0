"""The demonstration's data: ISO 3166 and ISO 639, as the package pycountry ships them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import peewee
import pycountry

from .models import Country, Language, Region

Rows: TypeAlias = list[dict[str, Any]]

LANGUAGE_KINDS: Mapping[str, str] = {
    "C": "constructed",
    "E": "extinct",
    "H": "historical",
    "L": "living",
    "S": "special",
}


def tables() -> Iterator[tuple[type[peewee.Model], Rows]]:
    """All rows by model, parents before children."""
    yield Country, _countries()
    yield Region, _regions()
    yield Language, _languages()


def _countries() -> Rows:
    return [
        {
            "code": country.alpha_2,
            "name": country.name,
            "official_name": getattr(country, "official_name", None),
            "flag": country.flag,
        }
        for country in pycountry.countries
    ]


def _regions() -> Rows:
    parents = {region.code: region.parent_code for region in pycountry.subdivisions}

    def depth(code: str) -> int:
        parent = parents[code]
        return 0 if parent is None else 1 + depth(parent)

    return [
        {
            "code": region.code,
            "country": region.country_code,
            "parent": region.parent_code,
            "kind": region.type,
            "name": region.name,
        }
        for region in sorted(pycountry.subdivisions, key=lambda region: depth(region.code))
    ]


def _languages() -> Rows:
    return [
        {"code": language.alpha_3, "name": language.name, "kind": LANGUAGE_KINDS[language.type]}
        for language in pycountry.languages
    ]
