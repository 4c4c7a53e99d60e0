"""What somebody does to the tables: every way to write that Peewee has, and raw SQL."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import peewee

from .models import Models
from .obstacles import refusals

KEYS = "abcdeABC"


class Habits(NamedTuple):
    """What the people of one fleet like to do, and to write.

    Attributes:
        weights: How often each of the `DEEDS` is done.
        letters: Titles and names are of these: the fewer, the more often they meet.
        nocase: Whether they refer to others in small letters or in capitals, as they like.
    """

    weights: Sequence[int]
    letters: str
    nocase: bool


class User:
    """Somebody with a device, for one step."""

    def __init__(self, database: Any, models: Models, habits: Habits, chance: Random) -> None:
        self._database = database
        self._habits = habits
        self._chance = chance
        self._firm = models.firm
        self._person = models.person
        self._profile = models.profile
        self._footnote = models.footnote
        self._node = models.node
        self._link = models.link
        self._mention = models.mention

    def act(self) -> None:
        """One thing, or several in a transaction, which may fail as a whole."""
        chance = self._chance
        with refusals():
            if chance.random() < 0.6:
                self._do_something()
                return
            with self._database.atomic():
                for _ in range(chance.randrange(1, 5)):
                    with refusals(), self._database.atomic():
                        self._do_something()
                if chance.random() < 0.1:
                    raise peewee.IntegrityError("so that all is taken back")

    def _do_something(self) -> None:
        deeds = [deed for some in DEEDS for deed in some]
        self._chance.choices(deeds, self._habits.weights)[0](self)

    def _key(self) -> str:
        return self._chance.choice(KEYS)

    def _word(self) -> str:
        return self._chance.choice(self._habits.letters)

    def _word_or_none(self) -> str | None:
        return self._chance.choice((None, self._word()))

    def _any(self, model: Any) -> Any:
        """A row, or None if there is none."""
        rows = list(model.select().order_by(*model._meta.get_primary_keys()))
        return self._chance.choice(rows) if rows else None

    def _said(self, text: Any) -> Any:
        """What is referred to, as somebody writes it."""
        if not self._habits.nocase or text is None or self._chance.random() < 0.5:
            return text
        return text.swapcase()

    def _any_node(self) -> Any:
        """A node's name, or None."""
        node = self._any(self._node)
        return self._said(node and node.name)

    def _put(self, model: Any, update: dict[str, Any], **values: Any) -> None:
        """Write a row, or change the one of its key."""
        known = isinstance(self._database, peewee.MySQLDatabase)  # whichever key it is
        target = {} if known else {"conflict_target": model._meta.get_primary_keys()}
        model.insert(**values).on_conflict(update=update, **target).execute()

    def _replace(self, model: Any, **values: Any) -> None:
        """Write a row in the place of all that are in its way; PostgreSQL knows of one only."""
        if not isinstance(self._database, peewee.PostgresqlDatabase):
            model.insert(**values).on_conflict("REPLACE").execute()
            return
        keys = {field.name for field in model._meta.get_primary_keys()}
        others = {name: value for name, value in values.items() if name not in keys}
        self._put(model, others, **values)

    # -- firms ---------------------------------------------------------------------------

    def found(self) -> None:
        self._firm.create(code=self._key(), title=self._word_or_none())

    def found_or_name(self) -> None:
        title = self._word()
        self._put(self._firm, {"title": title}, code=self._key(), title=title)

    def name_firm(self) -> None:
        if firm := self._any(self._firm):
            title = self._word_or_none()
            self._firm.update(title=title).where(self._firm.code == firm.code).execute()

    def choose_boss(self) -> None:
        if firm := self._any(self._firm):
            firm.boss = self._any(self._person)
            firm.save()

    def promise_boss(self) -> None:
        """Who is hired afterwards, or never: some databases ask only in the end."""
        if firm := self._any(self._firm):
            boss = UUID(int=self._chance.getrandbits(128))
            with self._database.atomic():
                self._firm.update(boss=boss).where(self._firm.code == firm.code).execute()
                if self._chance.random() < 0.7:
                    self._person.create(id=boss, firm=firm)

    def swap_titles(self) -> None:
        one, other = self._any(self._firm), self._any(self._firm)
        if one and one != other:
            with self._database.atomic():
                for firm, title in ((one, None), (other, one.title), (one, other.title)):
                    self._firm.update(title=title).where(self._firm.code == firm.code).execute()

    def rename_firm(self) -> None:
        code = self._key()
        firm = self._any(self._firm)
        # Who refers to it by other letters is parked elsewhere (docs/guarantees.md).
        if firm and firm.code.lower() != code.lower():
            self._firm.update(code=code).where(self._firm.code == firm.code).execute()

    def close_firm(self) -> None:
        if firm := self._any(self._firm):
            firm.delete_instance()

    # -- people --------------------------------------------------------------------------

    def hire(self) -> None:
        if firm := self._any(self._firm):
            self._person.create(
                firm=self._said(firm.code),
                nick=self._word_or_none(),
                parent=self._any(self._person),
                count=self._chance.randrange(5),
                tags=[self._word()],
            )

    def count(self) -> None:
        if person := self._any(self._person):
            more = self._person.count + self._chance.randrange(1, 5)
            self._person.update(count=more).where(self._person.id == person.id).execute()

    def add_tag(self) -> None:
        if person := self._any(self._person):
            person.tags = list(dict.fromkeys([*person.tags, self._word()]))
            person.save()

    def remove_tag(self) -> None:
        if person := self._any(self._person):
            person.tags = person.tags[1:]
            person.save()

    def move(self) -> None:
        if person := self._any(self._person):
            person.nick, person.parent = self._word(), self._any(self._person)
            firm = self._any(self._firm)
            person.firm = self._said(firm and firm.code)
            person.save()

    def forget_nick(self) -> None:
        self._person.update(nick=None).where(self._person.nick == self._word()).execute()

    def replace_person(self) -> None:
        if person := self._any(self._person):
            count = self._chance.randrange(4)
            nick, firm = self._word(), self._said(person.firm_id)
            self._replace(self._person, id=person.id, firm=firm, nick=nick, count=count)

    def renumber_person(self) -> None:
        if person := self._any(self._person):
            number = UUID(int=self._chance.getrandbits(128))
            self._person.update(id=number).where(self._person.id == person.id).execute()

    def dismiss(self) -> None:
        if person := self._any(self._person):
            person.delete_instance()

    def write_profile(self) -> None:
        if person := self._any(self._person):
            text = self._word() * self._chance.randrange(1, 4)
            self._replace(self._profile, person=person, text=text)

    def write_footnote(self) -> None:
        self._footnote.create(profile=self._any(self._profile), mark=self._word_or_none())

    def move_footnote(self) -> None:
        if footnote := self._any(self._footnote):
            footnote.profile, footnote.mark = self._any(self._profile), self._word_or_none()
            footnote.save()

    def remove_profile(self) -> None:
        if profile := self._any(self._profile):
            profile.delete_instance()

    # -- nodes and links -----------------------------------------------------------------

    def add_node(self) -> None:
        self._node.insert(
            name=self._key(), above=self._any_node(), best=self._chance.randrange(9)
        ).on_conflict_ignore().execute()

    def change_node(self) -> None:
        changes = {"best": self._chance.randrange(9), "above": self._any_node()}
        self._node.update(**changes).where(self._node.name == self._key()).execute()

    def rename_node(self) -> None:
        if node := self._any(self._node):
            name = self._key() + self._key()
            if self._habits.nocase:
                name = self._chance.choice((name, self._said(node.name)))
            self._node.update(name=name).where(self._node.name == node.name).execute()

    def remove_node(self) -> None:
        self._node.delete().where(self._node.name == self._key()).execute()

    def link_up(self) -> None:
        person, node = self._any(self._person), self._any_node()
        if person and node:
            weight = Decimal(self._chance.randrange(999)) / 100
            slot = self._chance.choice((None, 1, 2, 3))
            self._replace(self._link, person=person, node=node, weight=weight, slot=slot)

    def unlink(self) -> None:
        self._link.delete().where(self._link.slot == self._chance.randrange(4)).execute()

    # -- mentions ------------------------------------------------------------------------

    def _title(self) -> Any:
        firm = self._any(self._firm)
        return self._said(firm and firm.title)

    def mention_firm(self) -> None:
        moment = datetime.datetime(2020, 1, 1, self._chance.randrange(24))
        self._mention.create(title=self._title(), picture=self._chance.randbytes(3), moment=moment)

    def mention_another(self) -> None:
        if mention := self._any(self._mention):
            title = self._title()
            self._mention.update(title=title).where(self._mention.id == mention.id).execute()

    def remove_mention(self) -> None:
        self._mention.delete().where(self._mention.title == self._word()).execute()


DEEDS: Sequence[Sequence[Callable[[User], None]]] = (
    (User.found, User.found_or_name, User.name_firm, User.choose_boss, User.close_firm),
    (User.found, User.promise_boss, User.swap_titles, User.rename_firm),
    (
        User.hire,
        User.move,
        User.forget_nick,
        User.replace_person,
        User.renumber_person,
        User.dismiss,
    ),
    (User.write_profile, User.count, User.add_tag, User.remove_tag),
    (User.write_profile, User.write_footnote, User.move_footnote, User.remove_profile),
    (User.add_node, User.change_node, User.rename_node, User.remove_node),
    (User.link_up, User.unlink),
    (User.mention_firm, User.mention_another, User.remove_mention),
)
"""By what they are about. The first of each makes a row, which the others need."""
