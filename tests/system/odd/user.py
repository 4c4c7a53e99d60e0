"""What somebody does to the tables: every way to write that Peewee has, and raw SQL."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from random import Random
from typing import Any

import peewee

from .models import Models

LETTERS = "abcdeABC"

RAW = (
    'UPDATE "per son" SET count = count + 1',
    "DELETE FROM link WHERE slot = 1",
    "INSERT OR REPLACE INTO node (name, best) VALUES ('a', 3)",
    "UPDATE node SET best = best + 1",
    "DELETE FROM firm WHERE code = 'a'",
    "UPDATE OR IGNORE firm SET title = 'z'",
    "REPLACE INTO firm (code, title) VALUES ('b', 'a')",
    "UPDATE firm SET code = code || 'x' WHERE code = 'c'",
)
"""For devices whose triggers see it."""


class User:
    """Somebody with a device, for one step."""

    def __init__(self, database: Any, models: Models, chance: Random) -> None:
        self._database = database
        self._chance = chance
        self._firm = models.firm
        self._person = models.person
        self._profile = models.profile
        self._node = models.node
        self._link = models.link
        self._mention = models.mention
        self._deeds: Sequence[Callable[[], object]] = (
            self._found,
            self._found_or_name,
            self._name_firm,
            self._choose_boss,
            self._close_firm,
            self._hire,
            self._count,
            self._count,
            self._add_tag,
            self._remove_tag,
            self._move,
            self._forget_nick,
            self._replace_person,
            self._dismiss,
            self._write_profile,
            self._add_node,
            self._change_node,
            self._rename_node,
            self._remove_node,
            self._link_up,
            self._unlink,
            self._mention_firm,
            self._mention_another,
            self._remove_mention,
        )

    def act(self) -> None:
        """One thing, or several in a transaction, which may fail as a whole."""
        chance = self._chance
        with suppress(peewee.IntegrityError):
            if chance.random() < 0.6:
                chance.choice(self._deeds)()
                return
            with self._database.atomic():
                for _ in range(chance.randrange(1, 5)):
                    with suppress(peewee.IntegrityError), self._database.atomic():
                        chance.choice(self._deeds)()
                if chance.random() < 0.1:
                    raise peewee.IntegrityError("so that all is taken back")

    def _word(self) -> str:
        return self._chance.choice(LETTERS)

    def _word_or_none(self) -> str | None:
        return self._chance.choice((None, self._word()))

    def _any(self, model: Any) -> Any:
        """A row, or None if there is none."""
        rows = list(model.select())
        return self._chance.choice(rows) if rows else None

    # -- firms ---------------------------------------------------------------------------

    def _found(self) -> None:
        self._firm.create(code=self._word(), title=self._word_or_none())

    def _found_or_name(self) -> None:
        title = self._word()
        self._firm.insert(code=self._word(), title=title).on_conflict(
            conflict_target=[self._firm.code], update={self._firm.title: title}
        ).execute()

    def _name_firm(self) -> None:
        if firm := self._any(self._firm):
            title = self._word_or_none()
            self._firm.update(title=title).where(self._firm.code == firm.code).execute()

    def _choose_boss(self) -> None:
        if firm := self._any(self._firm):
            firm.boss = self._any(self._person)
            firm.save()

    def _close_firm(self) -> None:
        if firm := self._any(self._firm):
            firm.delete_instance()

    # -- people --------------------------------------------------------------------------

    def _hire(self) -> None:
        if firm := self._any(self._firm):
            self._person.create(
                firm=firm,
                nick=self._word_or_none(),
                parent=self._any(self._person),
                count=self._chance.randrange(5),
                tags=[self._word()],
            )

    def _count(self) -> None:
        if person := self._any(self._person):
            more = self._person.count + self._chance.randrange(1, 5)
            self._person.update(count=more).where(self._person.id == person.id).execute()

    def _add_tag(self) -> None:
        if person := self._any(self._person):
            person.tags = list(dict.fromkeys([*person.tags, self._word()]))
            person.save()

    def _remove_tag(self) -> None:
        if person := self._any(self._person):
            person.tags = person.tags[1:]
            person.save()

    def _move(self) -> None:
        if person := self._any(self._person):
            person.nick, person.parent = self._word(), self._any(self._person)
            person.firm = self._any(self._firm)
            person.save()

    def _forget_nick(self) -> None:
        self._person.update(nick=None).where(self._person.nick == self._word()).execute()

    def _replace_person(self) -> None:
        if person := self._any(self._person):
            self._person.insert(
                id=person.id,
                firm=person.firm_id,
                nick=self._word(),
                count=self._chance.randrange(4),
            ).on_conflict("REPLACE").execute()

    def _dismiss(self) -> None:
        if person := self._any(self._person):
            person.delete_instance()

    def _write_profile(self) -> None:
        if person := self._any(self._person):
            text = self._word() * self._chance.randrange(1, 4)
            self._profile.insert(person=person, text=text).on_conflict("REPLACE").execute()

    # -- nodes and links -----------------------------------------------------------------

    def _add_node(self) -> None:
        self._node.insert(
            name=self._word(), above=self._any(self._node), best=self._chance.randrange(9)
        ).on_conflict_ignore().execute()

    def _change_node(self) -> None:
        changes = {"best": self._chance.randrange(9), "above": self._any(self._node)}
        self._node.update(**changes).where(self._node.name == self._word()).execute()

    def _rename_node(self) -> None:
        if node := self._any(self._node):
            name = self._word() + self._word()
            self._node.update(name=name).where(self._node.name == node.name).execute()

    def _remove_node(self) -> None:
        self._node.delete().where(self._node.name == self._word()).execute()

    def _link_up(self) -> None:
        person, node = self._any(self._person), self._any(self._node)
        if person and node:
            weight = Decimal(self._chance.randrange(999)) / 100
            slot = self._chance.choice((None, 1, 2, 3))
            self._link.insert(person=person, node=node, weight=weight, slot=slot).on_conflict(
                "REPLACE"
            ).execute()

    def _unlink(self) -> None:
        self._link.delete().where(self._link.slot == self._chance.randrange(4)).execute()

    # -- mentions ------------------------------------------------------------------------

    def _title(self) -> Any:
        firm = self._any(self._firm)
        return firm and firm.title

    def _mention_firm(self) -> None:
        moment = datetime.datetime(2020, 1, 1, self._chance.randrange(24))
        self._mention.create(title=self._title(), picture=self._chance.randbytes(3), moment=moment)

    def _mention_another(self) -> None:
        if mention := self._any(self._mention):
            title = self._title()
            self._mention.update(title=title).where(self._mention.id == mention.id).execute()

    def _remove_mention(self) -> None:
        self._mention.delete().where(self._mention.title == self._word()).execute()
