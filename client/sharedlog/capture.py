"""The recorder: every ORM write to a tracked table becomes entries of the client log.

All ORM writes meet in `Database.execute`, whether they come from an instance, from a query,
from `bulk_create` or from a many-to-many field, so that is where changes are recorded: at
the statement that makes them, in the transaction that makes them, exactly once. (A handler
of the `post_save` signal would come too late: another handler may have written the same row
in between, and the older values would be recorded last.)

Two ways, and the first is only a faster form of the second:

- *by value*: the statement says itself which rows it writes and which values they get.
  The entries are written first and taken back if the statement did not do it.
- *by reading back*: the statement is given a RETURNING clause, and what it answers is
  recorded: expressions, upserts, conditions, database defaults, converted values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import peewee

from .changes import CREATE, DELETE, MODIFY, Wire
from .errors import ConfigurationError
from .fields import NotCanonical
from .journal import OPERATION_CODES, Journal, Record, chunks
from .tracked import Registry, Tracked, TrackedColumn

Row = dict[peewee.Field, Any]
"""A row as Python values by field."""


class Recorder:
    """Records what is written through one database object while it is installed."""

    def __init__(self, database: peewee.Database, registry: Registry, journal: Journal) -> None:
        self._database = database
        self._registry = registry
        self._journal = journal
        self._execute: Callable[..., Any] = database.execute
        self.on_record: Callable[[], None] | None = None

    def install(self) -> None:
        """Start recording: from here on `database.execute` is this recorder's."""
        if getattr(self._database, "_sharedlog_recorder", None) is not None:
            raise ConfigurationError(
                "This database object is being recorded already.",
                hint="Keep one Sync for a database, or close() the other one first.",
            )
        self._execute = self._database.execute
        self._database._sharedlog_recorder = self
        self._database.execute = self.execute

    def uninstall(self) -> None:
        if getattr(self._database, "_sharedlog_recorder", None) is self:
            self._database._sharedlog_recorder = None
            self._database.execute = self._execute

    def execute(self, query: Any, **options: Any) -> Any:
        """What `Database.execute` does, and the entries for it."""
        if not isinstance(query, peewee._WriteQuery):
            return self._execute(query, **options)
        tracked = self._registry.table(query.table)
        if tracked is None:
            return self._execute(query, **options)
        with self._journal.transaction():
            cursor = self._by_value(tracked, query, options)
            if cursor is None:
                with self._journal.savepoint():
                    self._journal.take_write_lock()
                    cursor = self._by_reading_back(tracked, query, options)
        if self.on_record is not None:
            self.on_record()
        return cursor

    # -- by value ------------------------------------------------------------------------

    def _by_value(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        try:
            if isinstance(query, peewee.Insert):
                query, records = _inserted(tracked, query)
            elif isinstance(query, peewee.Update):
                records = _updated(tracked, query)
            else:
                records = None if self._cascading(tracked) else _deleted(tracked, query)
        except NotCanonical:
            return None
        if not records:
            return None if records is None else self._execute(query, **options)
        first = self._journal.append(records)
        try:
            cursor = self._execute(query, **options)
        except BaseException:
            self._journal.take_back(first)
            raise
        if not isinstance(query, peewee.Insert) and self._database.rows_affected(cursor) == 0:
            self._journal.take_back(first)
        return cursor

    # -- by reading back -----------------------------------------------------------------

    def _by_reading_back(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        if isinstance(query, peewee.Insert):
            return self._insert(tracked, query, options)
        if isinstance(query, peewee.Update):
            return self._update(tracked, query, options)
        return self._delete(tracked, query, options)

    def _insert(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        conflict = query._on_conflict
        if conflict is None:
            cursor, records = self._run(tracked, query, options, lambda key: (CREATE, None))
            self._append(records)
            return cursor
        query = self._with_frozen_rows(tracked, query)
        before = self._rivals(tracked, query)
        names = _conflict_names(tracked, conflict)

        def operation(key: str) -> tuple[str, Sequence[str] | None]:
            return (MODIFY, names) if key in before else (CREATE, None)

        cursor, records = self._run(tracked, query, options, operation)
        self._append([*self._vanished(tracked, before, records), *records])
        return cursor

    def _update(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        names = _updated_names(tracked, query)
        if names is not None:
            cursor, records = self._run(tracked, query, options, lambda key: (MODIFY, names))
            self._append(records)
            return cursor
        # The key itself changes: a deletion and a creation.
        before = self._keys(tracked, _same_rows(tracked, query))
        every = list(tracked.by_name)
        cursor, records = self._run(
            tracked,
            query,
            options,
            lambda key: (MODIFY, every) if key in before else (CREATE, None),
        )
        self._append([*self._vanished(tracked, before, records), *records])
        return cursor

    def _delete(self, tracked: Tracked, query: Any, options: dict[str, Any]) -> Any:
        cascade: list[Record] = []
        if self._cascading(tracked):
            rows = self._read(tracked, _same_rows(tracked, query))
            self._cascade(tracked, rows, cascade, {tracked.collection: set()})
        cursor, records = self._run(tracked, query, options, lambda key: (DELETE, None))
        self._append([*records, *cascade])
        return cursor

    def _run(
        self,
        tracked: Tracked,
        query: Any,
        options: dict[str, Any],
        operation: Callable[[str], tuple[str, Sequence[str] | None]],
    ) -> tuple[Answer, list[Record]]:
        """Run the query; return what the caller expects, and a record of each row it answers.

        `operation` says for a row's pk what happened to it, and which fields were written.
        """
        columns = [*tracked.key, *tracked.columns]
        own = list(query._returning or ())
        clone = query.clone()
        clone._returning = [*own, *(column.field for column in columns)]
        cursor = self._execute(clone, **options)
        answered = cursor.fetchall()
        records = []
        for row in answered:
            values = [
                column.field.python_value(value)
                for column, value in zip(columns, row[len(own) :], strict=True)
            ]
            pk = tracked.pk_json(tracked.pk_wire(values[: len(tracked.key)]))
            records.append(_record(tracked, pk, *operation(pk), values[len(tracked.key) :]))
        return Answer(cursor, [row[: len(own)] for row in answered], len(own)), records

    def _append(self, records: list[Record]) -> None:
        if records:
            self._journal.append(records)

    def _vanished(
        self, tracked: Tracked, before: Mapping[str, Sequence[Any]], records: list[Record]
    ) -> list[Record]:
        """Deletions of those rows of `before` that the statement displaced."""
        written = {record.pk for record in records}
        gone = {pk: key for pk, key in before.items() if pk not in written}
        if not gone:
            return []
        still = self._existing(tracked, list(gone.values()))
        delete = OPERATION_CODES[DELETE]
        return [Record(tracked.collection, pk, delete, None) for pk in gone if pk not in still]

    # -- what the database does on its own -----------------------------------------------

    def _cascading(self, tracked: Tracked) -> bool:
        return any(
            column.field.on_delete and column.field.on_delete.upper() in ("CASCADE", "SET NULL")
            for _, column in self._registry.children(tracked)
        ) and enforces_foreign_keys(self._database)

    def _cascade(
        self, parent: Tracked, rows: list[Row], records: list[Record], seen: dict[str, set[str]]
    ) -> None:
        """Collect what ON DELETE does to tracked children of rows about to be deleted."""
        for child, column in self._registry.children(parent):
            rule = (column.field.on_delete or "").upper()
            if rule not in ("CASCADE", "SET NULL"):
                continue
            values = [row[column.field.rel_field] for row in rows]
            children: list[Row] = []
            for chunk in chunks([value for value in values if value is not None]):
                children += self._read(child, child.model.select().where(column.field.in_(chunk)))
            done = seen.setdefault(child.collection, set())
            fresh = []
            for row in children:
                pk = child.pk_json(child.pk_wire([row[c.field] for c in child.key]))
                if pk not in done:
                    fresh.append(row)
                    if rule == "CASCADE":
                        done.add(pk)
                        records.append(Record(child.collection, pk, OPERATION_CODES[DELETE], None))
                    else:
                        value = child.value_json({column.name: None})
                        records.append(Record(child.collection, pk, OPERATION_CODES[MODIFY], value))
            if rule == "CASCADE" and fresh:
                self._cascade(child, fresh, records, seen)

    # -- reading -------------------------------------------------------------------------

    def _read(self, tracked: Tracked, query: Any) -> list[Row]:
        fields = [column.field for column in (*tracked.key, *tracked.columns)]
        rows = self._execute(query.columns(*fields)).fetchall()
        return [
            {f: f.python_value(value) for f, value in zip(fields, row, strict=True)} for row in rows
        ]

    def _keys(self, tracked: Tracked, query: Any) -> dict[str, Sequence[Any]]:
        """The keys (Python values) of a select's rows, by their JSON."""
        fields = [column.field for column in tracked.key]
        keys = {}
        for row in self._execute(query.columns(*fields)).fetchall():
            values = [f.python_value(value) for f, value in zip(fields, row, strict=True)]
            keys[tracked.pk_json(tracked.pk_wire(values))] = values
        return keys

    def _existing(self, tracked: Tracked, keys: list[Sequence[Any]]) -> dict[str, Sequence[Any]]:
        found: dict[str, Sequence[Any]] = {}
        fields = [column.field for column in tracked.key]
        for chunk in chunks(keys, 200):
            found |= self._keys(tracked, tracked.model.select().where(_any_of(fields, chunk)))
        return found

    def _with_frozen_rows(self, tracked: Tracked, query: Any) -> Any:
        """The insert with its rows in hand: generators, selects and callable defaults run once."""
        if query._query_type == peewee.Insert.QUERY:
            columns = list(query._columns or tracked.model._meta.sorted_fields)
            selected = self._execute(query._insert).fetchall()
            rows = [[peewee.Value(value, converter=False) for value in row] for row in selected]
        else:
            columns, rows = _rows_of(tracked, query)
        clone = query.clone()
        clone._columns, clone._insert = columns, rows
        return clone

    def _rivals(self, tracked: Tracked, query: Any) -> dict[str, Sequence[Any]]:
        """Rows in the table that share the key or another unique value with a row to insert."""
        fields = [
            tracked.model._meta.combined.get(getattr(c, "name", c), c) for c in query._columns
        ]
        uniques = _unique_sets(tracked.model)
        found: dict[str, Sequence[Any]] = {}
        for unique in uniques or []:
            if not set(unique) <= set(fields):
                if set(unique) == {column.field for column in tracked.key}:
                    continue  # a key that the database makes cannot clash
                uniques = None
                break
            place = {field: index for index, field in enumerate(fields)}
            values = [[row[place[field]] for field in unique] for row in query._insert]
            values = [v for v in values if not any(item is None for item in v)]
            if any(_is_expression(item) for row in values for item in row):
                uniques = None
                break
            for chunk in chunks(values, 200):
                select = tracked.model.select().where(_any_of(unique, chunk))
                found |= self._keys(tracked, select)
        if uniques is None:  # what clashes cannot be told beforehand: look at every row
            return self._keys(tracked, tracked.model.select())
        return found


class Answer:
    """A cursor for the caller: its own columns of what RETURNING answered, and the counts."""

    def __init__(self, cursor: Any, rows: list[Any], width: int) -> None:
        self._cursor = cursor
        self._rows = iter(rows)
        self.rowcount = len(rows)
        self.description = tuple(cursor.description or ())[:width]

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Any:
        return self._rows

    def close(self) -> None:
        self._cursor.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def enforces_foreign_keys(database: peewee.Database) -> bool:
    """Whether the database acts on foreign keys; SQLite does only when told to."""
    if isinstance(database, peewee.SqliteDatabase):
        row = database.execute_sql("PRAGMA foreign_keys").fetchone()
        return bool(row and row[0])
    return True


# -- what a statement says of itself -----------------------------------------------------


def _record(
    tracked: Tracked, pk: str, operation: str, names: Sequence[str] | None, values: list[Any]
) -> Record:
    """A record from values as they are in the table (`names`: the ones written, None for all)."""
    if operation == DELETE:
        return Record(tracked.collection, pk, OPERATION_CODES[DELETE], None)
    wire: dict[str, Wire] = {
        column.name: column.to_wire(value)
        for column, value in zip(tracked.columns, values, strict=True)
        if names is None or column.name in names
    }
    return Record(tracked.collection, pk, OPERATION_CODES[operation], tracked.value_json(wire))


def _inserted(tracked: Tracked, query: Any) -> tuple[Any, list[Record] | None]:
    """The records of a plain insert, and the query with its defaults made explicit."""
    if query._on_conflict is not None or query._query_type == peewee.Insert.QUERY:
        return query, None
    fields, rows = _rows_of(tracked, query)
    if not rows:
        return query, []
    place = {field: index for index, field in enumerate(fields)}
    if any(column.field not in place for column in tracked.key):
        raise NotCanonical
    for column in tracked.columns:
        if column.field not in place and column.field.constraints:
            raise NotCanonical  # the database may have a default of its own
    keys = [(column, place[column.field]) for column in tracked.key]
    places = [(column, place.get(column.field)) for column in tracked.columns]
    records = [
        Record(
            tracked.collection,
            tracked.pk_json(_pk_of(keys, row)),
            OPERATION_CODES[CREATE],
            tracked.value_json(
                {c.name: None if i is None else c.exact_wire(row[i]) for c, i in places}
            ),
        )
        for row in rows
    ]
    if query._query_type == peewee.Insert.SIMPLE and len(fields) == len(query._insert):
        return query, records
    clone = query.clone()
    clone._columns, clone._insert = fields, rows
    return clone, records


def _pk_of(keys: Sequence[tuple[TrackedColumn, int]], row: Sequence[Any]) -> Wire:
    pk = [column.exact_wire(row[index]) for column, index in keys]
    if None in pk:
        raise NotCanonical
    return pk[0] if len(pk) == 1 else pk


def _rows_of(tracked: Tracked, query: Any) -> tuple[list[peewee.Field], list[list[Any]]]:
    """An insert's fields and rows, with the model's defaults: what Peewee would write."""
    defaults = tracked.model._meta.defaults if isinstance(query, peewee.ModelInsert) else {}
    if query._query_type == peewee.Insert.SIMPLE:
        row = {_field_of(tracked, key): value for key, value in query._insert.items()}
        for field, default in defaults.items():
            if field not in row:
                row[field] = default() if callable(default) else default
        return list(row), [list(row.values())]
    source = list(query._insert)
    if not source:
        return [], []
    columns = query._columns or (
        list(source[0]) if isinstance(source[0], Mapping) else query.get_default_columns()
    )
    fields = [_field_of(tracked, column) for column in columns]
    # By hash: a list would ask `==`, and two fields make an expression of it, which is true.
    named = set(fields)
    fields += [field for field in defaults if field not in named]
    return fields, [_row_of(fields, defaults, row) for row in source]


def _row_of(fields: Sequence[peewee.Field], defaults: Mapping[Any, Any], row: Any) -> list[Any]:
    values = []
    for index, field in enumerate(fields):
        if isinstance(row, Mapping):
            for lookup in (field, field.name, field.column_name):
                if lookup in row:
                    values.append(row[lookup])
                    break
            else:
                values.append(_default(field, defaults))
        elif index < len(row):
            values.append(row[index])
        else:
            values.append(_default(field, defaults))
    return values


def _default(field: peewee.Field, defaults: Mapping[Any, Any]) -> Any:
    if field in defaults:
        default = defaults[field]
        return default() if callable(default) else default
    if field.null:
        return None
    raise ValueError(f"Missing value for {field.name}.")


def _field_of(tracked: Tracked, key: Any) -> peewee.Field:
    """The field for a field, a name or a column, as Peewee takes any of them."""
    if isinstance(key, peewee.Field):
        return key
    name = key if isinstance(key, str) else getattr(key, "name", None)
    field = tracked.model._meta.combined.get(name)
    if field is None:
        raise NotCanonical
    return field


def _updated(tracked: Tracked, query: Any) -> list[Record] | None:
    """The record of an update of one row by its key with plain values; else None."""
    if query._from or query._order_by or query._limit or query._returning:
        return None
    pk = _constant_key(tracked, query._where)
    if pk is None:
        return None
    value: dict[str, Wire] = {}
    for key, item in query._update.items():
        column = tracked.by_field.get(_field_of(tracked, key))
        if column is None or column.name not in tracked.by_name:
            return None
        value[column.name] = column.exact_wire(item)
    return [
        Record(
            tracked.collection,
            tracked.pk_json(pk),
            OPERATION_CODES[MODIFY],
            tracked.value_json(value),
        )
    ]


def _deleted(tracked: Tracked, query: Any) -> list[Record] | None:
    """The record of a deletion of one row by its key; else None."""
    if query._order_by or query._limit or query._returning:
        return None
    pk = _constant_key(tracked, query._where)
    if pk is None:
        return None
    return [Record(tracked.collection, tracked.pk_json(pk), OPERATION_CODES[DELETE], None)]


def _constant_key(tracked: Tracked, where: Any) -> Wire | None:
    """The pk if the condition is nothing but `key = constant`, for each part of the key."""
    found: dict[Any, Any] = {}
    stack = [where]
    while stack:
        node = stack.pop()
        if type(node) is not peewee.Expression:
            return None
        if node.op == peewee.OP.AND:
            stack += [node.lhs, node.rhs]
        elif node.op == peewee.OP.EQ and isinstance(node.lhs, peewee.Field):
            if node.lhs in found:
                return None
            found[node.lhs] = node.rhs
        else:
            return None
    if len(found) != len(tracked.key):
        return None
    pk = []
    for column in tracked.key:
        if column.field not in found:
            return None
        wire = column.exact_wire(found[column.field])
        if wire is None:
            return None
        pk.append(wire)
    return pk[0] if len(pk) == 1 else pk


def _updated_names(tracked: Tracked, query: Any) -> list[str] | None:
    """The names of the fields that an update sets; None if it may change the key."""
    names = []
    for key in query._update:
        try:
            column = tracked.by_field.get(_field_of(tracked, key))
        except NotCanonical:
            return None
        if column is None or column.name not in tracked.by_name:
            return None
        names.append(column.name)
    return names


def _conflict_names(tracked: Tracked, conflict: Any) -> list[str]:
    """The fields that an upsert sets in a row that stood already."""
    if conflict._action and conflict._action.lower() == "replace":
        return list(tracked.by_name)
    keys = [*(conflict._preserve or ()), *(conflict._update or {})]
    return [_field_of(tracked, key).name for key in keys]


def _same_rows(tracked: Tracked, query: Any) -> Any:
    """A select of the rows that an update or delete is about to touch."""
    select = tracked.model.select()
    if getattr(query, "_from", None):
        select = select.from_(tracked.model, *query._from)
    if query._where is not None:
        select = select.where(query._where)
    if query._order_by:
        select = select.order_by(*query._order_by)
    return select.limit(query._limit) if query._limit else select


def _unique_sets(model: type[peewee.Model]) -> list[list[peewee.Field]] | None:
    """The sets of fields that are unique together; None if some index is more than that."""
    meta = model._meta
    keys = list(meta.get_primary_keys())
    result = [keys] if keys else []
    result += [[field] for field in meta.sorted_fields if field.unique]
    for index in meta.indexes:
        if not isinstance(index, tuple):
            return None
        names, unique = index
        if unique:
            result.append([meta.combined[name] for name in names])
    return result


def _any_of(fields: Sequence[peewee.Field], rows: Iterable[Sequence[Any]]) -> Any:
    rows = list(rows)
    if len(fields) == 1:
        return fields[0].in_([row[0] for row in rows])
    alternatives = None
    for row in rows:
        same = None
        for field, value in zip(fields, row, strict=True):
            same = (field == value) if same is None else same & (field == value)
        alternatives = same if alternatives is None else alternatives | same
    return alternatives


def _is_expression(value: Any) -> bool:
    return isinstance(value, peewee.Node) and not isinstance(value, peewee.Model | peewee.Value)
