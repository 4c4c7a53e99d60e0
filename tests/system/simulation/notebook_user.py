"""What users of the notebook do, on few rows, so that devices meet."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from random import Random
from typing import Any

from .faults import Faults
from .kinds import JSON, NUMBERS, WORDS
from .notebook import Notebook
from .workload import Workload, count_of, rows_of

TAGS = ("red", "green", "blue", "")
KEYS = ("theme", "size", "lang")
PLACES = ("here", "there")
VALUES = (None, *JSON)
ROWS_MAX = 25


class NotebookUser(Workload):
    """One user at one device."""

    def __init__(self, chance: Random, faults: Faults) -> None:
        super().__init__(chance, faults)
        self._deleted: list[tuple[str, dict[str, Any]]] = []
        self._actions: list[Callable[[Notebook], object]] = [
            self.create_folder,
            self.move_folder,
            self.delete_folder,
            self.undo_deletion,
            self.undo_deletion,
            self.create_note,
            self.create_note,
            self.edit_note,
            self.edit_note,
            self.edit_note,
            self.move_note,
            self.delete_note,
            self.count_up,
            self.insert_many_notes,
            self.bulk_create_notes,
            self.bulk_update_notes,
            self.delete_where,
            self.create_tag,
            self.edit_tag,
            self.delete_tag,
            self.tag_note,
            self.untag_note,
            self.put_cover,
            self.delete_cover,
            self.put_line,
            self.book_line,
            self.delete_line,
            self.set_setting,
            self.replace_setting,
            self.upsert_setting,
            self.delete_setting,
        ]

    def at_noon(self, models: Notebook) -> str:
        models.setting.replace(key="noon", value=self._chance.choice(VALUES)).execute()
        return "noon"

    # -- choosing ------------------------------------------------------------------------

    def _id(self) -> uuid.UUID:
        return uuid.UUID(int=self._chance.getrandbits(128), version=4)

    def _any(self, model: Any) -> Any:
        """One of the rows, or None if there is none."""
        rows = rows_of(model)
        return self._chance.choice(rows) if rows else None

    def _key(self, model: Any) -> Any:
        """The key of one of the rows, or now and then None."""
        row = self._any(model) if self._chance.random() < 0.8 else None
        return None if row is None else row._pk

    def _word(self) -> str:
        return self._chance.choice(WORDS)

    def _crowded(self, model: Any) -> bool:
        return count_of(model) >= ROWS_MAX

    def _remember(self, name: str, row: Any) -> None:
        """For those who think better of it."""
        self._deleted = [*self._deleted[-9:], (name, dict(row.__data__))]

    def undo_deletion(self, models: Notebook) -> None:
        """Create a row again that was deleted here, with the same key, as far as it goes."""
        if self._deleted:
            name, values = self._chance.choice(self._deleted)
            for field, value in values.items():
                if field in ("parent", "folder") and value is not None:
                    found = models.folder.get_or_none(models.folder.id == value)
                    values = {**values, field: None if found is None else value}
            getattr(models, name).create(**values)

    # -- folders -------------------------------------------------------------------------

    def create_folder(self, models: Notebook) -> None:
        if self._crowded(models.folder):
            return self.delete_folder(models)
        parent = self._key(models.folder)
        models.folder.create(id=self._id(), name=self._word(), parent=parent)

    def move_folder(self, models: Notebook) -> None:
        """Anywhere, below itself too: what two devices do together may make a circle."""
        folder = self._any(models.folder)
        if folder is not None:
            folder.parent = self._key(models.folder)
            folder.save()

    def delete_folder(self, models: Notebook) -> None:
        folder = self._any(models.folder)
        if folder is not None:
            self._remember("folder", folder)
            folder.delete_instance()  # the database deletes what is below

    # -- notes ---------------------------------------------------------------------------

    def _new_note(self, models: Notebook) -> dict[str, Any]:
        return {
            "id": self._id(),
            "title": self._word(),
            "count": self._chance.choice(NUMBERS),
            "done": self._chance.random() < 0.5,
            "body": self._chance.choice((None, "", "long " * self._chance.randint(1, 100))),
            "folder": self._key(models.folder),
        }

    def create_note(self, models: Notebook) -> None:
        if self._crowded(models.note):
            return self.delete_note(models)
        models.note.create(**self._new_note(models))

    def edit_note(self, models: Notebook) -> None:
        note = self._any(models.note)
        if note is not None:
            values = self._new_note(models)
            for name in self._chance.sample(("title", "count", "done", "body"), 2):
                setattr(note, name, values[name])
            note.save()

    def move_note(self, models: Notebook) -> None:
        note = self._any(models.note)
        if note is not None:
            models.note.set_by_id(note.id, {"folder": self._key(models.folder)})

    def delete_note(self, models: Notebook) -> None:
        note = self._any(models.note)
        if note is not None:
            self._remember("note", note)
            note.delete_instance(recursive=self._chance.random() < 0.5)

    def count_up(self, models: Notebook) -> None:
        few = models.note.count.between(-100, 100)
        models.note.update(count=models.note.count + 1).where(few).execute()

    def insert_many_notes(self, models: Notebook) -> None:
        if not self._crowded(models.note):
            rows = [self._new_note(models) for _ in range(self._chance.randint(1, 4))]
            models.note.insert_many(rows).execute()

    def bulk_create_notes(self, models: Notebook) -> None:
        if not self._crowded(models.note):
            models.note.bulk_create([models.note(**self._new_note(models)) for _ in range(2)])

    def bulk_update_notes(self, models: Notebook) -> None:
        notes = list(models.note.select().order_by(models.note.id).limit(3))
        for note in notes:
            note.title = self._word()
        if notes:
            models.note.bulk_update(notes, [models.note.title])

    def delete_where(self, models: Notebook) -> None:
        models.note.delete().where(models.note.title == self._word()).execute()

    # -- tags, covers --------------------------------------------------------------------

    def create_tag(self, models: Notebook) -> None:
        word, colour = self._chance.choice(TAGS), self._word()
        models.tag.get_or_create(word=word, defaults={"colour": colour})

    def edit_tag(self, models: Notebook) -> None:
        colour = self._chance.choice((None, "", "white"))
        models.tag.update(colour=colour).where(
            models.tag.word == self._chance.choice(TAGS)
        ).execute()

    def delete_tag(self, models: Notebook) -> None:
        models.tag.delete_by_id(self._chance.choice(TAGS))

    def tag_note(self, models: Notebook) -> None:
        note, tag = self._any(models.note), self._any(models.tag)
        if note is not None and tag is not None:
            note.tags.add(tag)

    def untag_note(self, models: Notebook) -> None:
        note = self._any(models.note)
        if note is not None:
            note.tags.clear()

    def put_cover(self, models: Notebook) -> None:
        note = self._any(models.note)
        if note is not None:
            picture = self._chance.choice((None, b"", b"\x00\xff"))
            models.cover.create(note=note, picture=picture, width=self._chance.choice((0.0, 0.1)))

    def delete_cover(self, models: Notebook) -> None:
        cover = self._any(models.cover)
        if cover is not None:
            cover.delete_instance()

    # -- lines: a composite key, and a parent that cannot go as long as they are there ----

    def put_line(self, models: Notebook) -> None:
        key = {"place": self._chance.choice(PLACES), "day": self._chance.randint(0, 3)}
        models.line.create(**key, amount=self._chance.choice(NUMBERS), note=self._key(models.note))

    def book_line(self, models: Notebook) -> None:
        line = self._any(models.line)
        if line is not None:
            line.amount, line.note = self._chance.choice(NUMBERS), self._key(models.note)
            line.save()

    def delete_line(self, models: Notebook) -> None:
        models.line.delete().where(models.line.day == self._chance.randint(0, 3)).execute()

    # -- settings: a key that every device makes for itself ------------------------------

    def set_setting(self, models: Notebook) -> None:
        setting = models.setting.get_or_none(key=self._chance.choice(KEYS))
        if setting is not None:
            setting.value = self._chance.choice(VALUES)
            setting.save()

    def replace_setting(self, models: Notebook) -> None:
        key, value = self._chance.choice(KEYS), self._chance.choice(VALUES)
        models.setting.replace(key=key, value=value).execute()

    def upsert_setting(self, models: Notebook) -> None:
        key, value = self._chance.choice(KEYS), self._chance.choice(VALUES)
        models.setting.insert(key=key, value=value).on_conflict(
            conflict_target=[models.setting.key], preserve=[models.setting.value]
        ).execute()

    def delete_setting(self, models: Notebook) -> None:
        setting = models.setting.get_or_none(key=self._chance.choice(KEYS))
        if setting is not None:
            setting.delete_instance()
