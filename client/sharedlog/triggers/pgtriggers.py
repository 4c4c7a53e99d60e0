"""The triggers of a tracked table in PostgreSQL: one function notes every change of every table.

A row is noted as JSON, which PostgreSQL writes without loss: numbers with all their digits, bytes
as hexadecimal text. As text: JSONB refuses what a column of the type JSON may hold, and so would
the application's own write be. Which of it changed is found out when it is harvested.

Whoever writes takes a lock that others may share, and sharedlog takes it alone: so nothing is
written between what it harvests and what it applies. The lock is waited for before a statement
looks for rows, so who waits for it does not hold, by that statement, what sharedlog needs.
"""

from __future__ import annotations

import re
from hashlib import sha256

from ..dialects import quote
from ..models.tracked import Tracked
from .ddl import CREATED, DELETED, MODIFIED

OFF = "SELECT set_config('sharedlog.off', ?, true)"
"""Recording is off, in this transaction alone: '1'."""

IS_OFF = "SELECT coalesce(current_setting('sharedlog.off', true), '')"

# Its name comes first, so that it fires before triggers of the application that write the same
# row again.
_NAME = "00_sharedlog"

_FUNCTION = f"""CREATE OR REPLACE FUNCTION %(schema)s.sharedlog_note() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET bytea_output = 'hex' SET extra_float_digits = 1
AS $function$
DECLARE
    was text;
    became text;
BEGIN
    IF TG_LEVEL = 'STATEMENT' THEN
        PERFORM pg_advisory_xact_lock_shared(%(lock)s);
    END IF;
    IF current_setting('sharedlog.off', true) = '1' OR (
        TG_LEVEL = 'STATEMENT' AND TG_OP <> 'TRUNCATE'
    ) THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        IF current_setting('transaction_isolation') NOT LIKE 'read %%%%' THEN
            RAISE EXCEPTION 'TRUNCATE of %%%% would not be recorded in full within %%%%',
                TG_TABLE_NAME, upper(current_setting('transaction_isolation'))
                USING ERRCODE = 'feature_not_supported', DETAIL =
                'It also takes rows that this transaction does not see (sharedlog).',
                HINT = 'Use DELETE, or do it in a transaction that is READ COMMITTED.';
        END IF;
        EXECUTE format(
            'INSERT INTO %(schema)s.sharedlog_trace (shape, operation, at, tx, place, was) '
            'SELECT $1, {DELETED}, $2, $3, $4, row_to_json(t.*) FROM %%%%I.%%%%I AS t',
            TG_TABLE_SCHEMA, TG_TABLE_NAME
        ) USING TG_ARGV[0]::bigint, {{now}}, {{tx}}, {{place}};
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        was := row_to_json(OLD);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        became := row_to_json(NEW);
    END IF;
    IF was IS NOT DISTINCT FROM became THEN
        RETURN NULL;
    END IF;
    INSERT INTO %(schema)s.sharedlog_trace
        (shape, operation, at, tx, place, was, became)
    VALUES (
        TG_ARGV[0]::bigint,
        CASE TG_OP WHEN 'INSERT' THEN {CREATED} WHEN 'UPDATE' THEN {MODIFIED} ELSE {DELETED} END,
        {{now}}, {{tx}}, {{place}}, was, became
    );
    RETURN NULL;
END
$function$"""

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_TX = "pg_current_xact_id()::text::bigint"
_PLACE = "TG_RELID || ' ' || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME"

_SHAPE = re.compile(r"sharedlog_note\('(\d+)'\)")


def lock_of(schema: str) -> int:
    """The number of the advisory lock for the tables of a schema."""
    return int.from_bytes(sha256(f"sharedlog {schema}".encode()).digest()[:8], signed=True)


def function_of(schema: str) -> str:
    """The statement that makes the function."""
    text = _FUNCTION.replace("{now}", _NOW).replace("{tx}", _TX).replace("{place}", _PLACE)
    return text % {"schema": quote(schema), "lock": lock_of(schema)}


def triggers_of(tracked: Tracked, shape: int, schema: str) -> dict[str, str]:
    """The statements that make the triggers of a table, by their names."""
    events = {
        "lock": "BEFORE INSERT OR UPDATE OR DELETE",
        "emptied": "BEFORE TRUNCATE",
        "note": "AFTER INSERT OR UPDATE OR DELETE",
    }
    call = f"EXECUTE FUNCTION {quote(schema)}.sharedlog_note('{shape}')"
    return {
        f"{_NAME}_{event}": f"CREATE TRIGGER {quote(f'{_NAME}_{event}')} {when} ON {tracked.table} "
        f"FOR EACH {'ROW' if event == 'note' else 'STATEMENT'} {call}"
        for event, when in events.items()
    }


def shape_in(sql: str) -> int:
    """The number of the shape that a trigger notes, in what made it."""
    found = _SHAPE.search(sql)
    return int(found[1]) if found else 0
