"""How the values of columns are compared: which texts are one to a collation.

Where a column takes `acme` and `ACME` for one value, so does every foreign key that refers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import peewee

from ..changes import Wire, dumps
from ..dialects import dialect_of, quote
from ..dialects.base import PLAIN
from ..values.fields import Codec, codec_for

Fold = Callable[[str], str]
"""Makes one text of all that are equal."""


class Collation:
    """How the values of one column are compared.

    Attributes:
        fold: None if no two texts are equal.
        said: What makes another column compare its values like this one, in SQL.
        text: Makes the same JSON text of all values that are equal.
    """

    def __init__(self, fold: Fold | None = None, said: str = "") -> None:
        self.fold = fold
        self.said = said
        self.text: Callable[[Wire], str] = dumps if fold is None else self._text

    def _text(self, value: Wire) -> str:
        return dumps(self.fold(value) if self.fold and type(value) is str else value)


EXACT = Collation()
"""Of what is no text, and where only the database can tell."""


def is_known(name: str) -> bool:
    """Whether it is known what a collation takes for equal."""
    return name.upper() in _FOLDS


def collation_named(name: str, codec: Codec) -> Collation:
    """Of a column with such values."""
    if not _has_texts(codec):
        return EXACT
    return Collation(_FOLDS.get(name.upper()), f" COLLATE {quote(name)}")


class Collations:
    """The collations of the columns of one database, each asked for once."""

    def __init__(self, database: peewee.Database) -> None:
        self._database = database
        self._known: dict[int, Collation] = {}

    def of(self, field: peewee.Field) -> Collation:
        known = self._known.get(id(field))  # its class gives == and so a dict another meaning
        if known is None:
            known = self._known[id(field)] = self._asked(field)
        return known

    def forget(self) -> None:
        """The tables may have been altered."""
        self._known.clear()

    def _asked(self, field: peewee.Field) -> Collation:
        dialect, codec, meta = dialect_of(self._database), codec_for(field), field.model._meta
        if dialect.typed or not _has_texts(codec):
            return EXACT
        place = meta.schema, meta.table_name, field.column_name
        return collation_named(dialect.collation(self._database, *place), codec)


def _has_texts(codec: Codec) -> bool:
    """Whether a text on the wire is one in the column, too: only these compare by collations."""
    return codec.plain is str or codec.own


def _without_case(text: str) -> str:
    """As SQLite's NOCASE has it: the 26 letters only."""
    return (
        text.lower() if text.isascii() else "".join(c.lower() if c.isascii() else c for c in text)
    )


def _without_trailing_spaces(text: str) -> str:
    return text.rstrip(" ")


_FOLDS: Mapping[str, Fold | None] = {
    PLAIN: None,
    "NOCASE": _without_case,
    "RTRIM": _without_trailing_spaces,
}
