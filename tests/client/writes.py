"""Every way to write, with what must be recorded of it. Kinds of recorders share the table."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import peewee
from peewee import CharField, IntegerField, fn

from .shop import (
    Article,
    ArticleTag,
    Comment,
    Note,
    NoteTag,
    Price,
    Reply,
    Shelf,
    Tag,
    key,
    note,
)

Change = tuple[str, str, Any, Any]
Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One way to write. `before` are rows that stand already, `statements` the cost allowed.

    `by_triggers`: where triggers record something else. They see each row as a statement comes to
    it, where the other recorder sees what the whole statement made of the table, and they see no
    change where a value is written that stands already. `by_comparison`: where a whole table is
    compared, because MySQL does not tell which rows were written, nobody sees that either.
    """

    run: Run
    before: Callable[[], object]
    expected: Sequence[Change]
    statements: int
    by_triggers: Sequence[Change] | None = None
    by_comparison: Sequence[Change] | None = None

    @property
    def name(self) -> str:
        return self.run.__name__.rstrip("_")

    def expected_by(self, recorder: str, where: str) -> Sequence[Change]:
        if where == "mysql" and self.by_comparison is not None:
            return self.by_comparison
        if recorder == "triggers" and self.by_triggers is not None:
            return self.by_triggers
        return self.expected


CASES: list[Case] = []


def nothing() -> None:
    pass


def both(*steps: Callable[[], object]) -> Callable[[], None]:
    """One step after the other."""

    def run() -> None:
        for step in steps:
            step()

    return run


def case(
    *expected: Change,
    before: Callable[[], object] = nothing,
    statements: int = 2,
    by_triggers: Sequence[Change] | None = None,
    by_comparison: Sequence[Change] | None = None,
) -> Callable[[Run], Run]:
    def add(run: Run) -> Run:
        CASES.append(Case(run, before, expected, statements, by_triggers, by_comparison))
        return run

    return add


def create(model: type[peewee.Model], pk: Any, **values: Any) -> Change:
    return "create", model._meta.table_name, pk, values


def on(*target: Any) -> dict[str, Any]:
    """Upon which conflict; MySQL knows no other than all of them."""
    everywhere = isinstance(Note._meta.database, peewee.MySQLDatabase)
    return {} if everywhere else {"conflict_target": target}


def modify(model: type[peewee.Model], pk: Any, **values: Any) -> Change:
    return "modify", model._meta.table_name, pk, values


def delete(model: type[peewee.Model], pk: Any) -> Change:
    return "delete", model._meta.table_name, pk, None


def new_note(number: int, title: str, turn: int, **values: Any) -> Change:
    return create(Note, key(number), **note(title, turn, **values))


def three_notes() -> None:
    for title in "abc":
        Note.create(title=title)


def tags_only() -> None:
    for name in ("red", "blue"):
        Tag.create(name=name)


def tags_and_notes() -> None:
    for name in ("red", "blue"):
        Tag.create(name=name)
    for title in "ab":
        Note.create(title=title)


def tagged() -> None:
    tags_and_notes()
    for name in ("red", "blue"):
        Note.get(title="a").tags.add(Tag.get(name=name))
    Note.get(title="b").tags.add(Tag.get(name="red"))


def a_family() -> None:
    root = Note.create(title="root")  # 1
    child = Note.create(title="child", parent=root)  # 2
    Note.create(title="grandchild", parent=child)  # 3
    Note.create(title="other")  # 4
    comment = Comment.create(note=child, text="?")  # 5
    Reply.create(comment=comment, mood="glad")  # 6


def articles() -> None:
    Article.create(code="a", shelf=1, place=1, barcode="111")
    Article.create(code="b", shelf=1, place=2, barcode="222")
    Article.create(code="c", shelf=2, place=1)


def prices() -> None:
    articles()
    Price.create(article="a", currency="EUR", cents=5)
    Price.create(article="a", currency="USD", cents=6)
    Price.create(article="b", currency="EUR", cents=7)
    Shelf.create(number=1, best="111")
    Shelf.create(number=2, best="222")


# -- instances ---------------------------------------------------------------------------


@case(new_note(1, "x", 100))
def create_() -> Any:
    return Note.create(title="x")


@case(new_note(9, "x", 7, rank=3, data={"a": [1, None]}))
def create_with_everything() -> Any:
    return Note.create(id=uuid.UUID(int=9), title="x", rank=3, turn=7, data={"a": [1, None]})


@case(new_note(1, "", 100, rank=0, data={}))
def create_with_empty_values() -> Any:
    return Note.create(title="", rank=0, data={})


@case(new_note(1, "X", 100))
def create_from_an_expression() -> Any:
    return Note.create(title=fn.upper("x"))


@case(new_note(1, "x", 100))
def save_a_new_instance() -> Any:
    return Note(title="x").save()


@case(new_note(5, "x", 100))
def save_a_new_instance_with_a_key() -> Any:
    return Note(id=uuid.UUID(int=5), title="x").save()


@case(new_note(1, "x", 100))
def save_by_force() -> Any:
    return Note(title="x").save(force_insert=True)


@case(modify(Note, key(1), title="x"), before=three_notes, statements=3)
def save_a_change() -> Any:
    instance = Note.get(title="a")
    instance.title = "x"
    return instance.save()


@case(before=three_notes, statements=1)
def save_without_a_change() -> Any:
    return Note.get(title="a").save()


@case(modify(Note, key(1), rank=5), before=three_notes, statements=3)
def save_only_some() -> Any:
    instance = Note.get(title="a")
    instance.title, instance.rank = "x", 5
    return instance.save(only=[Note.rank])


@case(modify(Note, key(1), rank=1), before=three_notes, statements=3)
def save_an_expression() -> Any:
    instance = Note.get(title="a")
    instance.rank = Note.rank + 1
    return instance.save()


@case(modify(Note, key(1), title="x"), before=three_notes, statements=3)
def save_an_instance_that_was_saved_before() -> Any:
    instance = Note.get(title="a")
    instance.title = "x"
    return instance.save(), instance.save()


@case(modify(Note, key(3), parent=key(1)), before=three_notes, statements=4)
def save_a_reference() -> Any:
    instance = Note.get(title="c")
    instance.parent = Note.get(title="a")
    return instance.save()


@case(before=three_notes, statements=4)
def save_an_instance_whose_row_is_gone() -> Any:
    instance = Note.get(title="a")
    instance.id = uuid.UUID(int=77)
    instance._dirty = {"title"}
    return instance.save()


@case(delete(Note, key(2)), before=three_notes, statements=8)
def delete_an_instance() -> Any:
    return Note.get(title="b").delete_instance()


@case(delete(Reply, key(6)), before=a_family, statements=3)
def delete_an_instance_without_dependants() -> Any:
    return Reply.get().delete_instance()


@case(before=three_notes)
def delete_an_instance_that_was_never_saved() -> Any:
    return Note(title="x").delete_instance()


@case(delete(Note, key(1)), new_note(1, "a", 100), before=three_notes, statements=10)
def save_an_instance_that_was_deleted() -> Any:
    instance = Note.get(title="a")
    return instance.delete_instance(), instance.save()


@case(
    delete(Reply, key(6)),
    delete(Comment, key(5)),
    modify(Note, key(2), parent=None),
    delete(Note, key(1)),
    before=both(a_family, lambda: Comment.update(note=uuid.UUID(int=1)).execute()),
    statements=18,
)
def delete_an_instance_recursively_but_keep_nullable_dependants() -> Any:
    return Note.get(title="root").delete_instance(recursive=True)


@case(
    delete(Reply, key(6)),
    delete(Comment, key(5)),
    delete(Note, key(3)),
    delete(Note, key(2)),
    delete(Note, key(1)),
    before=a_family,
    statements=25,
)
def delete_an_instance_recursively_with_nullable_dependants() -> Any:
    return Note.get(title="root").delete_instance(recursive=True, delete_nullable=True)


@case(new_note(1, "x", 100, rank=4), statements=3)
def get_or_create_what_is_not_there() -> Any:
    return Note.get_or_create(title="x", defaults={"rank": 4})


@case(before=three_notes, statements=1)
def get_or_create_what_is_there() -> Any:
    return Note.get_or_create(title="a", defaults={"rank": 4})


# -- inserts -----------------------------------------------------------------------------


@case(new_note(1, "x", 100))
def insert_keywords() -> Any:
    return Note.insert(title="x").execute()


@case(new_note(1, "x", 100, rank=2))
def insert_by_name() -> Any:
    return Note.insert({"title": "x", "rank": 2}).execute()


@case(new_note(1, "x", 100, rank=2))
def insert_by_column_name() -> Any:
    return Note.insert({"title": "x", "number": 2}).execute()


@case(new_note(1, "x", 100, rank=2))
def insert_by_field() -> Any:
    return Note.insert({Note.title: "x", Note.rank: 2}).execute()


@case(new_note(3, "x", 100, tag=key(1)), before=tags_only)
def insert_by_object_id_name() -> Any:
    return Note.insert({"title": "x", "label": uuid.UUID(int=1)}).execute()


@case(new_note(3, "x", 100, tag=key(2)), before=tags_only, statements=3)
def insert_a_reference_as_an_instance() -> Any:
    return Note.insert(title="x", tag=Tag.get(name="blue")).execute()


@case(new_note(1, "X", 100, rank=3))
def insert_expressions() -> Any:
    return Note.insert(title=fn.upper("x"), rank=peewee.Value(1) + 2).execute()


@case(new_note(1, "x", 100))
def insert_as_rowcount() -> Any:
    return Note.insert(title="x").as_rowcount().execute()


@case(new_note(1, "x", 100))
def insert_returning_a_column() -> Any:
    return list(Note.insert(title="x").returning(Note.title).tuples().execute())


@case(new_note(1, "x", 100))
def insert_returning_instances() -> Any:
    return list(Note.insert(title="x").returning(Note).execute())


@case(new_note(1, "X", 100))
def insert_an_expression_returning_everything() -> Any:
    query = Note.insert(title=fn.upper("x")).returning(peewee.SQL("*"))
    return list(query.tuples().execute())


@case(
    create(Tag, key(1), name="red", count=0),
    create(Tag, key(2), name="blue", count=3),
    new_note(3, "a", 100, tag=key(1)),
    create(Comment, key(4), note=key(3), text=""),
    create(Reply, key(5), comment=key(4), mood="calm"),
    statements=10,
)
def insert_with_a_default_of_the_database() -> Any:
    Tag.insert(name="red").execute()
    Tag.insert(name="blue", count=3).execute()
    Note.insert(title="a", tag=uuid.UUID(int=1)).execute()
    Comment.insert(note=uuid.UUID(int=3)).execute()
    return Reply.insert(comment=uuid.UUID(int=4)).execute()


@case(new_note(1, "x", 100), new_note(2, "y", 101))
def insert_many_dicts() -> Any:
    return Note.insert_many([{"title": "x"}, {"title": "y"}]).execute()


@case(new_note(1, "x", 100, rank=1), new_note(2, "y", 101, rank=2))
def insert_many_dicts_by_field() -> Any:
    rows = [{Note.title: "x", Note.rank: 1}, {Note.title: "y", Note.rank: 2}]
    return Note.insert_many(rows).execute()


@case(new_note(1, "x", 100, rank=1), new_note(2, "y", 101))
def insert_many_ragged_dicts() -> Any:
    return Note.insert_many([{"title": "x", "rank": 1}, {"title": "y"}]).execute()


@case(new_note(1, "x", 100, rank=1), new_note(2, "y", 101, rank=2))
def insert_many_tuples() -> Any:
    rows = [("x", 1), ("y", 2)]
    return Note.insert_many(rows, fields=[Note.title, Note.rank]).execute()


@case(new_note(1, "x", 100, rank=1))
def insert_many_tuples_with_names() -> Any:
    return Note.insert_many([("x", 1)], fields=["title", "rank"]).execute()


@case(new_note(1, "x", 50), new_note(2, "y", 100))
def insert_many_short_tuples() -> Any:
    fields = [Note.title, Note.turn]
    return Note.insert_many([("x", 50), ("y",)], fields=fields).execute()


@case(new_note(7, "x", 1, rank=2), new_note(8, "y", 3, rank=4, data={"k": 1}))
def insert_many_full_tuples() -> Any:
    rows = [
        (uuid.UUID(int=7), "x", 2, 1, None, None, None),
        (uuid.UUID(int=8), "y", 4, 3, None, None, {"k": 1}),
    ]
    return Note.insert_many(rows).execute()


@case(new_note(1, "x", 100), new_note(2, "y", 101))
def insert_many_from_a_generator() -> Any:
    return Note.insert_many({"title": title} for title in "xy").execute()


@case(new_note(1, "X", 100), new_note(2, "y", 101))
def insert_many_from_a_generator_with_an_expression() -> Any:
    return Note.insert_many({"title": t} for t in (fn.upper("x"), "y")).execute()


@case(new_note(1, "x", 100, rank=5), new_note(2, "y", 101, rank=6))
def insert_many_from_a_generator_with_text_for_numbers() -> Any:
    rows = ((title, rank) for title, rank in (("x", "5"), ("y", "6")))
    return Note.insert_many(rows, fields=[Note.title, Note.rank]).execute()


@case(statements=0)
def insert_many_of_nothing() -> Any:
    return Note.insert_many([]).execute()


@case(new_note(1, "x", 100))
def insert_many_as_rowcount() -> Any:
    return Note.insert_many([{"title": "x"}]).as_rowcount().execute()


@case(new_note(1, "x", 100), new_note(2, "y", 101))
def insert_many_returning() -> Any:
    rows = [{"title": "x"}, {"title": "y"}]
    return list(Note.insert_many(rows).returning(Note.id, Note.turn).tuples().execute())


@case(
    *(create(Comment, key(n), note=key(n), text=title) for n, title in enumerate("abc", 1)),
    before=three_notes,
)
def insert_from_a_select() -> Any:
    select = Note.select(Note.id, Note.id, Note.title).order_by(Note.title)
    return Comment.insert_from(select, [Comment.id, "note", Comment.text]).execute()


@case(new_note(1, "x", 100), new_note(2, "y", 101))
def bulk_create() -> Any:
    return Note.bulk_create([Note(title="x"), Note(title="y")])


@case(*(new_note(n, t, 99 + n) for n, t in enumerate("vwxyz", 1)), statements=6)
def bulk_create_in_batches() -> Any:
    return Note.bulk_create([Note(title=title) for title in "vwxyz"], batch_size=2)


@case(new_note(4, "x", 103, parent=key(1)), before=three_notes, statements=3)
def bulk_create_with_a_reference() -> Any:
    return Note.bulk_create([Note(title="x", parent=Note.get(title="a"))])


# -- updates -----------------------------------------------------------------------------


@case(modify(Note, key(1), title="x", rank=4), before=three_notes)
def update_one_row_by_its_key() -> Any:
    return Note.update(title="x", rank=4).where(Note.id == uuid.UUID(int=1)).execute()


@case(before=three_notes, statements=3)
def update_one_row_that_is_not_there() -> Any:
    return Note.update(title="x").where(Note.id == uuid.UUID(int=99)).execute()


@case(modify(Note, key(1), title="x"), before=three_notes)
def update_one_row_by_its_key_as_text() -> Any:
    return Note.update(title="x").where(Note.id == key(1)).execute()


@case(modify(Note, key(1), title="x"), before=three_notes)
def update_one_row_by_its_key_and_a_condition() -> Any:
    return Note.update(title="x").where(Note.id == uuid.UUID(int=1), Note.rank == 0).execute()


@case(before=three_notes, statements=1)
def update_one_row_by_its_key_and_a_condition_that_fails() -> Any:
    return Note.update(title="x").where(Note.id == uuid.UUID(int=1), Note.rank == 1).execute()


@case(*(modify(Note, key(n), title="x") for n in (1, 2, 3)), before=three_notes)
def update_all_rows() -> Any:
    return Note.update(title="x").execute()


@case(modify(Note, key(2), rank=9), modify(Note, key(3), rank=9), before=three_notes)
def update_by_a_condition() -> Any:
    return Note.update(rank=9).where(Note.title > "a").execute()


@case(before=three_notes, statements=1)
def update_by_a_condition_that_fails() -> Any:
    return Note.update(rank=9).where(Note.title > "z").execute()


@case(*(modify(Note, key(n), rank=99 + n) for n in (1, 2, 3)), before=three_notes)
def update_with_an_expression() -> Any:
    return Note.update({Note.rank: Note.turn}).execute()


@case(modify(Note, key(1), rank=1, title="a!"), before=three_notes)
def update_one_row_with_expressions() -> Any:
    query = Note.update(rank=Note.rank + 1, title=Note.title + "!")
    return query.where(Note.id == uuid.UUID(int=1)).execute()


@case(modify(Note, key(1), rank=7), before=three_notes)
def update_by_a_subquery() -> Any:
    first = Note.select(fn.min(Note.title))
    return Note.update(rank=7).where(Note.title == first).execute()


@case(modify(Note, key(3), rank=3), modify(Note, key(4), rank=3), before=tags_and_notes)
def update_with_a_subquery() -> Any:
    letters = Tag.select(fn.min(fn.length(Tag.name)))
    return Note.update(rank=letters).execute()


@case(modify(Note, key(3), title="red"), before=tagged)
def update_from_another_table() -> Any:
    query = Note.update(title=Tag.name).from_(Tag)
    return query.where(Tag.name == "red", Note.title == "a").execute()


@case(modify(Note, key(3), rank=1), before=tagged)
def update_by_a_join() -> Any:
    blue = Note.select(Note.id).join(NoteTag).join(Tag).where(Tag.name == "blue")
    return Note.update(rank=1).where(Note.id.in_(blue)).execute()


@case(modify(Note, key(1), rank=5), before=three_notes)
def update_with_a_common_table_expression() -> Any:
    first = Note.select(fn.min(Note.title).alias("title")).cte("first")
    query = Note.update(rank=5).with_cte(first)
    return query.where(Note.title == first.select(first.c.title)).execute()


@case(before=three_notes, statements=1)
def update_one_row_that_is_not_there_with_a_common_table_expression() -> Any:
    first = Note.select(fn.min(Note.title).alias("title")).cte("first")
    return Note.update(rank=5).with_cte(first).where(Note.id == uuid.UUID(int=99)).execute()


@case(modify(Note, key(2), rank=5), modify(Note, key(3), rank=5), before=three_notes)
def update_returning() -> Any:
    query = Note.update(rank=5).where(Note.title > "a").returning(Note.title, Note.rank)
    return sorted(query.tuples().execute())


@case(modify(Note, key(1), rank=5), before=three_notes)
def update_one_row_returning_an_instance() -> Any:
    query = Note.update(rank=5).where(Note.id == uuid.UUID(int=1))
    return list(query.returning(Note).execute())


@case(modify(Note, key(1), data=None, parent=None), before=three_notes, by_triggers=())
def update_to_null() -> Any:
    return Note.update(data=None, parent=None).where(Note.id == uuid.UUID(int=1)).execute()


@case(modify(Note, key(3), tag=key(1)), before=tags_and_notes, statements=3)
def update_a_reference_to_an_instance() -> Any:
    tag = Tag.get(name="red")
    return Note.update(tag=tag).where(Note.id == uuid.UUID(int=3)).execute()


@case(
    modify(Note, key(1), title="a!", rank=1),
    modify(Note, key(2), title="b!", rank=2),
    modify(Note, key(3), title="c!", rank=3),
    before=three_notes,
    statements=3,
)
def bulk_update() -> Any:
    notes = list(Note.select().order_by(Note.title))
    for rank, instance in enumerate(notes, 1):
        instance.title, instance.rank = instance.title + "!", rank
    return Note.bulk_update(notes, [Note.title, "rank"])


@case(*(modify(Note, key(n), data={"n": n}) for n in (1, 2, 3)), before=three_notes, statements=5)
def bulk_update_in_batches() -> Any:
    notes = list(Note.select().order_by(Note.title))
    for number, instance in enumerate(notes, 1):
        instance.data = {"n": number}
    return Note.bulk_update(notes, [Note.data], batch_size=2)


@case(modify(Note, key(1), title="x"), before=three_notes)
def set_by_id() -> Any:
    return Note.set_by_id(uuid.UUID(int=1), {"title": "x"})


@case(new_note(4, "x", 103), before=three_notes)
def set_by_no_id() -> Any:
    return Note.set_by_id(None, {"title": "x"})


@case(modify(Note, key(1), title="x"), before=three_notes)
def set_item() -> Any:
    Note[uuid.UUID(int=1)] = {"title": "x"}


# -- deletions ---------------------------------------------------------------------------


@case(delete(Note, key(2)), delete(Note, key(3)), before=three_notes, statements=7)
def delete_by_a_condition() -> Any:
    return Note.delete().where(Note.title > "a").execute()


@case(delete(Reply, key(6)), before=a_family)
def delete_by_a_condition_without_dependants() -> Any:
    return Reply.delete().where(Reply.mood == "glad").execute()


@case(*(delete(Note, key(n)) for n in (1, 2, 3)), before=three_notes, statements=7)
def delete_all_rows() -> Any:
    return Note.delete().execute()


@case(before=three_notes)
def delete_nothing() -> Any:
    return Note.delete().where(Note.title == "z").execute()


@case(delete(Reply, key(6)), before=a_family)
def delete_by_id() -> Any:
    return Reply.delete_by_id(uuid.UUID(int=6))


@case(before=a_family, statements=3)
def delete_by_an_id_that_is_not_there() -> Any:
    return Reply.delete_by_id(uuid.UUID(int=99))


@case(delete(Reply, key(6)), before=a_family)
def delete_item() -> Any:
    del Reply[uuid.UUID(int=6)]


@case(delete(Reply, key(6)), before=a_family)
def delete_returning() -> Any:
    query = Reply.delete().where(Reply.mood == "glad").returning(Reply.id, Reply.mood)
    return list(query.tuples().execute())


@case(delete(Note, key(1)), before=three_notes, statements=7)
def delete_by_a_common_table_expression() -> Any:
    first = Note.select(fn.min(Note.title).alias("title")).cte("first")
    query = Note.delete().with_cte(first)
    return query.where(Note.title == first.select(first.c.title)).execute()


@case(*(delete(Note, key(n)) for n in (1, 2, 3)), before=three_notes, statements=7)
def truncate_table() -> Any:
    Note.truncate_table()


# -- what the database does on its own ---------------------------------------------------


@case(
    delete(Reply, key(6)),
    delete(Comment, key(5)),
    delete(Note, key(1)),
    delete(Note, key(2)),
    delete(Note, key(3)),
    before=a_family,
    statements=16,
)
def cascade_over_a_chain_and_a_self_reference() -> Any:
    return Note.delete().where(Note.title == "root").execute()


@case(
    delete(Reply, key(6)),
    delete(Comment, key(5)),
    delete(Note, key(1)),
    delete(Note, key(2)),
    delete(Note, key(3)),
    before=a_family,
    statements=13,
)
def cascade_onto_rows_of_the_statement_itself() -> Any:
    return Note.delete().where(Note.title.in_(["root", "child", "grandchild"])).execute()


@case(
    delete(NoteTag, [key(3), key(1)]),
    delete(NoteTag, [key(4), key(1)]),
    delete(Tag, key(1)),
    modify(Note, key(4), tag=None),
    before=both(
        tagged, lambda: Note.update(tag=uuid.UUID(int=1)).where(Note.title == "b").execute()
    ),
    statements=9,
)
def cascade_deletes_pairs_and_empties_references() -> Any:
    return Tag.delete_by_id(uuid.UUID(int=1))


@case(
    delete(Price, ["a", "EUR"]),
    delete(Price, ["a", "USD"]),
    delete(Article, "a"),
    modify(Shelf, 1, best=None),
    before=prices,
    statements=9,
)
def cascade_to_composite_keys_and_by_another_field() -> Any:
    return Article.delete_by_id("a")


@case(
    modify(Article, "a", barcode="999"), modify(Shelf, 1, best="999"), before=prices, statements=9
)
def cascade_of_an_update() -> Any:
    return Article.update(barcode="999").where(Article.code == "a").execute()


@case(
    delete(Price, ["a", "EUR"]),
    delete(Price, ["a", "USD"]),
    delete(Article, "a"),
    create(Article, "z", shelf=1, place=1, barcode="111"),
    create(Price, ["z", "EUR"], cents=5),
    create(Price, ["z", "USD"], cents=6),
    before=prices,
    statements=7,
)
def cascade_of_a_changed_key() -> Any:
    return Article.update(code="z").where(Article.code == "a").execute()


# -- changed keys ------------------------------------------------------------------------


@case(delete(Note, key(1)), new_note(50, "a", 100), before=three_notes, statements=4)
def change_a_key() -> Any:
    return Note.update(id=uuid.UUID(int=50)).where(Note.title == "a").execute()


@case(
    delete(Price, ["b", "EUR"]), create(Price, ["b", "CHF"], cents=8), before=prices, statements=4
)
def change_a_part_of_a_key() -> Any:
    query = Price.update(currency="CHF", cents=8)
    return query.where(Price.article == "b").execute()


@case(modify(Note, key(2), title="x"), before=three_notes, statements=4)
def change_a_key_to_what_it_is() -> Any:
    return Note.update(id=Note.id, title="x").where(Note.title == "b").execute()


@case(
    delete(Shelf, 12),
    modify(Shelf, 11, best="222"),
    create(Shelf, 10, best="111"),
    before=both(prices, lambda: Shelf.update(number=Shelf.number + 10).execute()),
    statements=4,
    by_triggers=(
        delete(Shelf, 11),
        create(Shelf, 10, best="111"),
        delete(Shelf, 12),
        create(Shelf, 11, best="222"),
    ),
)
def change_keys_in_a_row() -> Any:
    return Shelf.update(number=Shelf.number - 1).execute()


# -- conflicts ---------------------------------------------------------------------------


@case(create(Tag, key(1), name="red", count=2), statements=7)
def replace_nothing() -> Any:
    return Tag.replace(name="red", count=2).execute()


@case(modify(Tag, key(1), name="green", count=2), before=tags_only, statements=10)
def replace_the_same_key() -> Any:
    return Tag.replace(id=uuid.UUID(int=1), name="green", count=2).execute()


@case(
    delete(Tag, key(1)), create(Tag, key(3), name="red", count=2), before=tags_only, statements=10
)
def replace_displaces_a_row() -> Any:
    return Tag.replace(name="red", count=2).execute()


@case(
    delete(Article, "a"),
    delete(Article, "b"),
    modify(Article, "c", shelf=1, place=1, barcode="222"),
    before=articles,
    statements=11,
)
def replace_displaces_several_rows_by_several_indexes() -> Any:
    return Article.replace(code="c", shelf=1, place=1, barcode="222").execute()


@case(
    delete(Price, ["a", "EUR"]),
    delete(Price, ["a", "USD"]),
    modify(Article, "a", shelf=9, place=9, barcode=None),
    modify(Shelf, 1, best=None),
    before=prices,
    statements=11,
)
def replace_deletes_the_children_of_the_row() -> Any:
    return Article.replace(code="a", shelf=9, place=9).execute()


@case(
    create(Article, "y", shelf=7, place=7, barcode=None),
    before=articles,
    statements=9,
    by_triggers=(
        create(Article, "x", shelf=7, place=7, barcode=None),
        delete(Article, "x"),
        create(Article, "y", shelf=7, place=7, barcode=None),
    ),
)
def replace_many_that_displace_each_other() -> Any:
    fields = [Article.code, Article.shelf, Article.place]
    return Article.replace_many([("x", 7, 7), ("y", 7, 7)], fields=fields).execute()


@case(
    delete(Article, "b"),
    modify(Article, "a", shelf=1, place=2, barcode=None),
    create(Article, "x", shelf=3, place=3, barcode=None),
    before=articles,
    statements=9,
    by_comparison=(
        delete(Article, "b"),
        modify(Article, "a", place=2, barcode=None),
        create(Article, "x", shelf=3, place=3, barcode=None),
    ),
)
def replace_many() -> Any:
    rows = ({"code": c, "shelf": s, "place": p} for c, s, p in (("a", 1, 2), ("x", 3, 3)))
    return Article.replace_many(rows).execute()


@case(
    delete(Tag, key(2)),
    modify(Tag, key(1), name="blue", count=0),
    before=tags_only,
    statements=8,
    by_comparison=(delete(Tag, key(2)), modify(Tag, key(1), name="blue")),
)
def replace_from_a_select() -> Any:
    select = Tag.select(peewee.Value(uuid.UUID(int=1).hex), peewee.Value("blue"), peewee.Value(0))
    query = Tag.insert_from(select.limit(1), [Tag.id, Tag.name, Tag.count])
    return query.on_conflict_replace().execute()


@case(create(Tag, key(1), name="red", count=7), statements=3)
def upsert_what_is_not_there() -> Any:
    query = Tag.insert(name="red", count=7)
    return (
        query.on_conflict(**on(Tag.name), update={Tag.count: Tag.count + 1}).as_rowcount().execute()
    )


@case(modify(Tag, key(1), count=1), before=tags_only, statements=3)
def upsert_what_is_there_by_a_unique_field() -> Any:
    query = Tag.insert(name="red", count=7)
    return (
        query.on_conflict(**on(Tag.name), update={Tag.count: Tag.count + 1}).as_rowcount().execute()
    )


@case(modify(Tag, key(1), count=7), before=tags_only, statements=3)
def upsert_by_key_preserving() -> Any:
    query = Tag.insert(id=uuid.UUID(int=1), name="green", count=7)
    return query.on_conflict(**on(Tag.id), preserve=[Tag.count]).as_rowcount().execute()


@case(modify(Tag, key(1), count=8, name="green"), before=tags_only, statements=3)
def upsert_preserving_and_updating_by_name() -> Any:
    query = Tag.insert(id=uuid.UUID(int=1), name="green", count=7)
    action = {**on("id"), "preserve": ["name"], "update": {"count": 8}}
    return query.on_conflict(**action).as_rowcount().execute()


@case(modify(Tag, key(1), count=107), before=tags_only, statements=3)
def upsert_with_what_was_offered() -> Any:
    query = Tag.insert(name="red", count=7)
    update = {Tag.count: peewee.EXCLUDED.count + 100}
    return query.on_conflict(**on(Tag.name), update=update).as_rowcount().execute()


@case(before=tags_only)
def upsert_where_false() -> Any:
    query = Tag.insert(name="red", count=7)
    return (
        query.on_conflict(**on(Tag.name), update={Tag.count: 5}, where=(Tag.count > 100))
        .as_rowcount()
        .execute()
    )


@case(
    modify(Tag, key(2), count=4),
    create(Tag, key(4), name="green", count=5),
    before=tags_only,
    statements=3,
)
def upsert_many() -> Any:
    rows = [{"name": "blue", "count": 4}, {"name": "green", "count": 5}]
    query = Tag.insert_many(rows)
    return query.on_conflict(**on(Tag.name), preserve=[Tag.count]).as_rowcount().execute()


@case(
    create(Tag, key(1), name="red", count=6),
    statements=3,
    by_triggers=(create(Tag, key(1), name="red", count=4), modify(Tag, key(1), count=6)),
)
def upsert_many_onto_itself() -> Any:
    rows = [{"name": "red", "count": 4}, {"name": "red", "count": 6}]
    query = Tag.insert_many(rows)
    return query.on_conflict(**on(Tag.name), preserve=[Tag.count]).as_rowcount().execute()


@case(delete(Tag, key(1)), create(Tag, key(9), name="red", count=0), before=tags_only, statements=4)
def upsert_that_changes_the_key() -> Any:
    query = Tag.insert(id=uuid.UUID(int=9), name="red")
    return query.on_conflict(**on(Tag.name), preserve=[Tag.id]).as_rowcount().execute()


@case(
    modify(Tag, key(1), count=1),
    create(Tag, key(8), name="n", count=1),
    before=tags_only,
    statements=4,
)
def upsert_from_a_select() -> Any:
    red = Tag.select(Tag.id, Tag.name, peewee.Value(1)).where(Tag.name == "red")
    new = Tag.select(peewee.Value(uuid.UUID(int=8).hex), peewee.Value("n"), peewee.Value(1))
    select = (red | new.limit(1)).alias("both")
    rows = peewee.Select([select], [peewee.SQL("*")]).where(peewee.SQL("true"))
    query = Tag.insert_from(rows, [Tag.id, Tag.name, Tag.count])
    return query.on_conflict(**on(Tag.id), preserve=[Tag.count]).as_rowcount().execute()


@case(
    modify(Price, ["a", "EUR"], cents=50),
    create(Price, ["a", "CHF"], cents=51),
    before=prices,
    statements=3,
)
def upsert_by_a_composite_key() -> Any:
    rows = [("a", "EUR", 50), ("a", "CHF", 51)]
    query = Price.insert_many(rows, fields=[Price.article, Price.currency, Price.cents])
    target = [Price.article, Price.currency]
    return query.on_conflict(**on(*target), preserve=[Price.cents]).as_rowcount().execute()


@case(before=tags_only, statements=1)
def ignore_a_conflict() -> Any:
    return Tag.insert(name="red").on_conflict_ignore().as_rowcount().execute()


@case(create(Tag, key(4), name="green", count=0), before=tags_only)
def ignore_some_conflicts() -> Any:
    rows = ({"name": name} for name in ("red", "green"))
    return Tag.insert_many(rows).on_conflict_ignore().as_rowcount().execute()


@case(create(Tag, key(4), name="green", count=0), before=tags_only)
def do_nothing_on_a_conflict() -> Any:
    rows = ({"name": name} for name in ("red", "green"))
    query = Tag.insert_many(rows).on_conflict(action="nothing", **on(Tag.name))
    return query.as_rowcount().execute()


# -- many to many ------------------------------------------------------------------------


@case(create(NoteTag, [key(3), key(1)]), before=tags_and_notes, statements=4)
def add_a_tag() -> Any:
    return Note.get(title="a").tags.add(Tag.get(name="red"))


@case(
    create(NoteTag, [key(3), key(1)]),
    create(NoteTag, [key(3), key(2)]),
    before=tags_and_notes,
    statements=4,
)
def add_tags() -> Any:
    return Note.get(title="a").tags.add(list(Tag.select().order_by(Tag.id)))


@case(create(NoteTag, [key(3), key(2)]), before=tags_and_notes, statements=3)
def add_a_tag_by_its_id() -> Any:
    return Note.get(title="a").tags.add(uuid.UUID(int=2))


@case(
    create(ArticleTag, ["a", key(1)]),
    create(ArticleTag, ["a", key(2)]),
    before=both(tags_only, articles),
    statements=3,
)
def add_tags_by_a_query() -> Any:
    return Article.get(code="a").tags.add(Tag.select().order_by(Tag.id))


@case(create(NoteTag, [key(4), key(2)]), before=tagged, statements=4)
def add_from_the_other_side() -> Any:
    return Tag.get(name="blue").notes.add(Note.get(title="b"))


@case(delete(NoteTag, [key(3), key(1)]), before=tagged, statements=4)
def remove_a_tag() -> Any:
    return Note.get(title="a").tags.remove(Tag.get(name="red"))


@case(delete(NoteTag, [key(3), key(2)]), before=tagged, statements=3)
def remove_tags_by_a_query() -> Any:
    return Note.get(title="a").tags.remove(Tag.select().where(Tag.name == "blue"))


@case(
    delete(NoteTag, [key(3), key(1)]),
    delete(NoteTag, [key(3), key(2)]),
    before=tagged,
    statements=3,
)
def clear_tags() -> Any:
    return Note.get(title="a").tags.clear()


@case(
    delete(NoteTag, [key(3), key(1)]),
    delete(NoteTag, [key(3), key(2)]),
    create(NoteTag, [key(3), key(2)]),
    before=tagged,
    statements=6,
)
def set_tags() -> Any:
    Note.get(title="a").tags = [Tag.get(name="blue")]


# -- beside the models -------------------------------------------------------------------


@case(new_note(7, "x", 1, rank=2), before=nothing)
def insert_into_the_plain_table() -> Any:
    table = Note._meta.table
    row = {table.id: uuid.UUID(int=7).hex, table.title: "x", table.number: 2, table.turn: 1}
    return table.insert(row).execute(Note._meta.database)


@case(modify(Note, key(1), rank=9), modify(Note, key(2), rank=9), before=three_notes)
def update_the_plain_table() -> Any:
    table = Note._meta.table
    query = table.update({table.number: 9}).where(table.title < "c")
    return query.execute(Note._meta.database)


@case(delete(Note, key(3)), new_note(30, "c", 102), before=three_notes, statements=4)
def change_a_key_in_the_plain_table() -> Any:
    table = Note._meta.table
    query = table.update({table.id: uuid.UUID(int=30).hex}).where(table.title == "c")
    return query.execute(Note._meta.database)


@case(delete(Note, key(3)), before=three_notes, statements=7)
def delete_from_the_plain_table() -> Any:
    table = Note._meta.table
    return table.delete().where(table.title == "c").execute(Note._meta.database)


@case(
    create(Tag, key(1), name="red", count=1),
    modify(Tag, key(1), count=2),
    delete(Tag, key(1)),
    statements=11,
)
def write_through_a_table_of_ones_own() -> Any:
    table: Any = peewee.Table("tag", ("id", "name", "count")).bind(Note._meta.database)
    first = table.insert(id=uuid.UUID(int=1).hex, name="red", count=1).execute()
    second = table.update(count=2).where(table.name == "red").execute()
    return first, second, table.delete().where(table.name == "red").execute()


class Label(peewee.Model):
    """Another model of the table `tag`."""

    id = CharField(primary_key=True)
    title = CharField(column_name="name")
    number = IntegerField(column_name="count", default=5)

    class Meta:
        table_name = "tag"


@case(
    create(Tag, key(1), name="red", count=5),
    modify(Tag, key(1), count=2),
    delete(Tag, key(1)),
    statements=11,
)
def write_through_another_model_of_the_table() -> Any:
    with Label.bind_ctx(Note._meta.database):
        first = Label.insert(id=uuid.UUID(int=1).hex, title="red").execute()
        second = Label.update(number=2).where(Label.title == "red").execute()
        return first, second, Label.delete().where(Label.title == "red").execute()


@case(before=three_notes, statements=4)
def write_an_untracked_table() -> Any:
    database = Note._meta.database
    database.execute_sql("CREATE TABLE own (a INTEGER)")
    table: Any = peewee.Table("own", ("a",)).bind(database)
    results = table.insert(a=1).execute(), table.update(a=2).execute()
    database.execute_sql("DROP TABLE own")
    return results
