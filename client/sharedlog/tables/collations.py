"""How the values of columns are compared: which texts are one to a collation.

Where a column takes `acme` and `ACME` for one value, so does every foreign key that refers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import peewee

from ..changes import Wire, dumps
from ..dialects import dialect_of, quote
from ..dialects.base import PLAIN
from ..journal.journal import chunks
from ..values.fields import Codec, codec_for

Fold = Callable[[str], str]
"""Makes one text of all that are equal."""


class Collation:
    """How the values of one column are compared.

    Attributes:
        fold: None if no two texts are equal.
        said: What makes another column compare its values like this one, in SQL.
        text: Makes the same JSON text of all values that are equal.
        asks: Whether the database is asked what is equal.
    """

    asks: ClassVar[bool] = False

    def __init__(self, fold: Fold | None = None, said: str = "") -> None:
        self.fold = fold
        self.said = said
        self.text: Callable[[Wire], str] = dumps if fold is None else self._text

    def _text(self, value: Wire) -> str:
        return dumps(self.fold(value) if self.fold and type(value) is str else value)

    def texts(self, values: Sequence[Wire]) -> list[str]:
        """The same of many values, of which few are going to be equal to any that were seen."""
        return [self.text(value) for value in values]

    def learn(self, values: Iterable[Wire]) -> None:
        """These values are going to be compared."""


EXACT = Collation()
"""Of what is no text, and where only the database can tell."""


class Weighed(Collation):
    """Of which only the database knows what it takes for equal. Of equal texts, each becomes the
    one of them that was seen first."""

    asks = True

    def __init__(self, weights: Callable[[Sequence[str]], Sequence[str]]) -> None:
        super().__init__(self._first)
        self._weights = weights
        self._firsts: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def _first(self, text: str) -> str:
        if text not in self._known:
            self.learn((text,))
        return self._known[text]

    def texts(self, values: Sequence[Wire]) -> list[str]:
        texts = [value for value in values if type(value) is str]
        weights = dict(zip(texts, self._weights(texts), strict=True)) if texts else {}
        return [
            dumps(self._firsts.get(weights[value], value) if type(value) is str else value)
            for value in values
        ]

    def forget(self) -> None:
        self._firsts.clear()
        self._known.clear()

    def learn(self, values: Iterable[Wire]) -> None:
        fresh = {v: None for v in values if type(v) is str and v not in self._known}
        for chunk in chunks(fresh):
            for text, weight in zip(chunk, self._weights(chunk), strict=True):
                self._known[text] = self._firsts.setdefault(weight, text)


class Collations:
    """The collations of one database. Of columns, each is asked for once."""

    def __init__(self, database: peewee.Database) -> None:
        self._database = database
        self._dialect = dialect_of(database)
        self._known: dict[int, Collation] = {}
        self._weighed: dict[str, Weighed] = {}

    def forget(self) -> None:
        """The tables may have been altered."""
        self._known.clear()

    def begin(self) -> None:
        """Others are going to be compared than so far: what was learned may be forgotten."""
        for weighed in self._weighed.values():
            weighed.forget()

    def knows(self, name: str) -> bool:
        """Whether it can be told what a collation takes for equal."""
        return self._dialect.typed or name.upper() in _FOLDS

    def named(self, name: str, codec: Codec) -> Collation:
        """Of a column with such values."""
        if not has_texts(codec) or (self._dialect.typed and name == PLAIN):
            return EXACT
        if not self._dialect.typed:
            return Collation(_FOLDS.get(name.upper()), f" COLLATE {quote(name)}")
        if name not in self._weighed:
            weights = partial(self._dialect.weights, self._database, name)
            self._weighed[name] = Weighed(weights)
        return self._weighed[name]

    def of(self, field: peewee.Field) -> Collation:
        """Of a field's column."""
        known = self._known.get(id(field))  # its class gives == and so a dict another meaning
        if known is None:
            known = self._known[id(field)] = self._asked(field)
        return known

    def _asked(self, field: peewee.Field) -> Collation:
        codec, meta = codec_for(field), field.model._meta
        if not has_texts(codec):
            return EXACT
        place = meta.schema, meta.table_name, field.column_name
        return self.named(self._dialect.collation(self._database, *place), codec)


def has_texts(codec: Codec) -> bool:
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
