"""Rows as others refer to them: by a key that may be one of several, equal to its collation.

Of most tables a name is one row. Where keys fold, rows have one name that are one to those that
refer to them, and at most one of these is in the table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator

from ..changes import Wire, loads
from ..merge.reconcile import RowState
from ..models.registry import Registry
from ..models.tracked import Tracked
from ..tables.collations import Collation
from ..tables.rows import Work
from ..tables.versions import Versions
from .atwork import AtWork
from .parents import Relations

Name = tuple[str, str]
"""Collection, and a key as JSON text, the same text for all keys that are equal."""


class Names:
    """Finds the rows of names, at work and elsewhere. Those that are found in the tables are at
    work from there on."""

    def __init__(
        self, registry: Registry, relations: Relations, versions: Versions, at_work: AtWork
    ) -> None:
        self._registry = registry
        self._versions = versions
        self._at_work = at_work
        self.collation: Callable[[Tracked], Collation] = relations.of_key

    def of(self, tracked: Tracked, key: Wire) -> Name:
        return tracked.collection, self.collation(tracked).text(key)

    def fold(self, tracked: Tracked) -> bool:
        """Whether rows of a table may have one name."""
        return self.collation(tracked).fold is not None

    def by_table(self, names: Iterable[Name]) -> Iterator[tuple[Tracked, list[str]]]:
        texts: dict[str, list[str]] = defaultdict(list)
        for collection, text in names:
            texts[collection].append(text)
        for collection, some in texts.items():
            tracked = self._registry.collection(collection)
            assert tracked is not None
            yield tracked, some

    def rows(self, tracked: Tracked, texts: Collection[str]) -> dict[str, list[Work]]:
        """The rows of these names that are at work, or in a table whose keys fold."""
        collation = self.collation(tracked)
        self._at_work.referring(tracked, tracked.key[0], texts, collation)
        found: dict[str, list[Work]] = defaultdict(list)
        wanted = set(texts)
        for work in self._at_work.works.get(tracked.collection, ()):
            if (text := collation.text(work.key)) in wanted:
                found[text].append(work)
        return found

    def dead(self, tracked: Tracked, texts: Collection[str]) -> dict[str, RowState]:
        """The deleted rows of these names that are not at work, by pk. Where a living row has the
        name, no other one is needed."""
        collection, pks = tracked.collection, texts
        if self.fold(tracked):
            lacking = set(texts) - self._living(tracked, texts)
            pks = list(self._dead_keys(tracked, lacking)) if lacking else []
        absent = [pk for pk in pks if self._at_work.get(collection, pk) is None]
        return self._versions.dead(collection, absent)

    def _dead_keys(self, tracked: Tracked, texts: Collection[str]) -> Iterator[str]:
        """The pks of all deleted rows of these names."""
        for pks in self._versions.dead_keys(tracked.collection):
            found = self.collation(tracked).texts([loads(pk) for pk in pks])
            yield from (pk for pk, text in zip(pks, found, strict=True) if text in texts)

    def _living(self, tracked: Tracked, texts: Collection[str]) -> set[str]:
        """The names that living rows have, among these."""
        collation, collection = self.collation(tracked), tracked.collection
        works = self._at_work.works.get(collection, ())
        found = {collation.text(work.key) for work in works if work.lives}
        # Who is in the table and not alive is at work with every page.
        for pk in self._at_work.standing(tracked, tracked.key[0], texts, collation):
            if self._at_work.get(collection, pk) is None:
                found.add(collation.text(loads(pk)))
        return found
