"""Every kind of field, with values that it gives back, values that it makes something else of,
and values that cannot be carried."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import peewee
from hypothesis import strategies as st
from playhouse.fields import CompressedField, EnumField, IntEnumField, PickleField

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=45))
ODD = datetime.timezone(datetime.timedelta(seconds=-3559, microseconds=-7))


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mood(str, enum.Enum):  # noqa: UP042  (str() of a member is its name)
    GOOD = "good"
    BAD = "bad"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class ListField(peewee.TextField):
    """An application's own: a list as text. Its values can be changed in place."""

    def db_value(self, value: Any) -> Any:
        return value if value is None else ",".join(value)

    def python_value(self, value: Any) -> Any:
        return value if value is None else value.split(",")


class SealedField(peewee.TextField):
    """An application's own: converts to something else each time, as encryption does."""

    turns = count(1)

    def db_value(self, value: Any) -> Any:
        return value if value is None else f"{next(self.turns)}:{value[::-1]}"

    def python_value(self, value: Any) -> Any:
        return value if value is None else value.partition(":")[2][::-1]


class LowerField(peewee.CharField):
    """An application's own: lets the database do it."""

    def db_value(self, value: Any) -> Any:
        return value if value is None else peewee.fn.lower(value)


class MoodField(peewee.CharField):
    """An application's own: gives the database a subclass of text."""

    def db_value(self, value: Any) -> Any:
        return None if value is None else Mood(value)


class MomentField(peewee.Field):
    """An application's own: gives the database whatever it is given; no affinity."""

    field_type = ""


FixedChar: Any = peewee.FixedCharField


class SubclassField(peewee.IntegerField):
    """Converts as its base does, so it is no type of its own."""


def sorted_dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


@dataclass(frozen=True)
class Kind:
    """A kind of field.

    Attributes:
        field: Makes one. Takes the keywords of a field.
        values: What it gives back as it was given.
        odd: What it takes, too, and makes something else of, or leaves as it is.
        refused: What cannot be carried.
        more: A strategy for values.
    """

    name: str
    field: Callable[..., peewee.Field]
    values: Sequence[Any]
    odd: Sequence[Any] = ()
    refused: Sequence[Any] = ()
    more: st.SearchStrategy[Any] | None = None
    as_key: bool = True

    def __str__(self) -> str:
        return self.name


def _naive(value: datetime.datetime) -> datetime.datetime:
    return value.replace(tzinfo=None)


TEXTS = [
    "",
    "a",
    "a\0b",
    "\0",
    "é\u0301 ✓ 😀 \U0010ffff",
    "\ufeff\u2028\r\n\t\x7f",
    "x" * 100_000,
    "null",
    "Infinity",
    '{"raw":1}',
    "12",
    "1e5",
    " padded ",
]
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
INTEGERS = [0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
TOO_LARGE = [2**63, -(2**63) - 1, 2**64, 10**30]
FLOATS = [0.0, -0.0, 1.0, 0.1, 1e308, -1e308, 5e-324, 1e16, 1.5e300, 2.0**63, 1 / 3]
INFINITE = [float("inf"), float("-inf")]
NAN = float("nan")
SURROGATES = ["\ud800", "a\udfff"]
UUIDS = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID(int=0x1234 << 64)]
BYTES = [b"", b"\0", bytes(range(256)), b"\xff" * 1000]
DATETIMES = [
    datetime.datetime(1, 1, 1),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999),
    datetime.datetime(2024, 2, 29, 12, 30),
    datetime.datetime(2024, 2, 29, 12, 30, 0, 1),
    datetime.datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
    datetime.datetime(2024, 2, 29, 12, 30, 0, 5, tzinfo=EAST),
    datetime.datetime(2024, 2, 29, tzinfo=ODD),
]
JSONS = [
    {},
    [],
    "",
    "text",
    0,
    1,
    -0.0,
    1e16,
    1e-7,
    True,
    False,
    {"a": [1, None, {"b": []}], "é😀\0": "\u2028</script>"},
    {"raw": 1},
    {"raw": {"bytes": "AA=="}},
    {"integer": "5"},
    {"b": 1, "a": 2},
    [2**53 + 1, -(2**63), 2**63 - 1],
    [[[[[[[[[[1]]]]]]]]]],
    "x" * 100_000,
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ROUND = ["10", "10.0", "0.1", "12345.67891", "-0.00001", "99999999.99999", "1E+3", "0E+5", "1.10"]
EXACT = [*ROUND, "9007199254740993", "-9223372036854775808", "123456789012345", "1E+20", "0.123"]


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


KINDS = [
    Kind(
        "Text", peewee.TextField, TEXTS, [5, 1.5, True, b"bytes", Decimal("1.0")], SURROGATES, TEXT
    ),
    Kind("Char", peewee.CharField, TEXTS, [5, 1.5, True, b"bytes"], SURROGATES, TEXT),
    Kind(
        "FixedChar",
        lambda **o: FixedChar(max_length=4, **o),
        ["", "abcd"],
        [" ab ", "abcdef", 12345, b"xy"],
        SURROGATES,
        TEXT,
    ),
    Kind(
        "Integer",
        peewee.IntegerField,
        INTEGERS,
        ["12", "abc", "", 1.5, True, b"7", b"\xff", Decimal("3"), Size.LARGE, " 5 "],
        TOO_LARGE,
        st.integers(-(2**63), 2**63 - 1),
    ),
    Kind("BigInteger", peewee.BigIntegerField, INTEGERS, ["12"], TOO_LARGE),
    Kind("SmallInteger", peewee.SmallIntegerField, INTEGERS, ["12"], TOO_LARGE),
    Kind("Subclass", SubclassField, INTEGERS, ["12"], TOO_LARGE),
    Kind(
        "Float",
        peewee.FloatField,
        FLOATS + INFINITE,
        [5, "1.5", "abc", True, Decimal("0.1"), 2**60, b"\xff"],
        [NAN],
        st.floats(allow_nan=False),
    ),
    Kind("Double", peewee.DoubleField, FLOATS + INFINITE, [5], [NAN]),
    Kind(
        "Decimal",
        lambda **o: peewee.DecimalField(max_digits=20, decimal_places=10, **o),
        [Decimal(text) for text in EXACT],
        [0, 5, 1.5, "1.10", "abc", True, 10**17, 1e20, 0.1 + 0.2, -0.0, ""],
        [
            Decimal("12345678901234567.123456789012"),
            Decimal("0.1234567890123456"),
            Decimal("9007199254740993.5"),
            Decimal("NaN"),
            Decimal("Infinity"),
            Decimal("1E+400"),
            Decimal("1E-400"),
        ],
        st.decimals(-(10**9), 10**9, places=5),
    ),
    Kind(
        "RoundedDecimal",
        lambda **o: peewee.DecimalField(decimal_places=2, auto_round=True, **o),
        [Decimal("1.5"), Decimal("-0.25"), Decimal(7)],
        [Decimal("1.005"), 1.239, "2.2222", 5],
        [Decimal("NaN")],
        st.decimals(-(10**9), 10**9, places=2),
    ),
    Kind(
        "Boolean", peewee.BooleanField, [True, False], [1, 0, "yes", "", 2, 0.0], [], st.booleans()
    ),
    Kind(
        "Blob",
        peewee.BlobField,
        BYTES,
        ["text", bytearray(b"ab"), memoryview(b"cd"), 5, 1.5],
        [],
        st.binary(max_size=30),
    ),
    Kind(
        "BigBit",
        peewee.BigBitField,
        BYTES,
        [bytearray(b"a"), "x"],
        [],
        st.binary(max_size=9),
        False,
    ),
    Kind("Bit", peewee.BitField, [0, 1, 2**62, -1], ["4"], TOO_LARGE),
    Kind(
        "UUID",
        peewee.UUIDField,
        UUIDS,
        [
            str(uuid.UUID(int=5)),
            uuid.UUID(int=0xABCDEF).hex,
            uuid.UUID(int=0xABCDEF).hex.upper(),
            "{" + str(uuid.UUID(int=6)).upper() + "}",
            uuid.UUID(int=7).bytes,
            "no uuid at all",
            "x" * 32,
            5,
            "",
        ],
        [],
        st.uuids(),
    ),
    Kind(
        "BinaryUUID",
        peewee.BinaryUUIDField,
        UUIDS,
        [uuid.UUID(int=5).hex, uuid.UUID(int=7).bytes],
        [],
        st.uuids(),
    ),
    Kind(
        "DateTime",
        peewee.DateTimeField,
        DATETIMES,
        [
            "2024-02-29 12:30:00",
            "2024-02-29T12:30:00Z",
            "2024-02-29",
            "2024-02-29 12:30",
            "garbage",
            "2024",
            "",
            20240229,
            1.5,
            datetime.date(2024, 2, 29),
            datetime.datetime(2024, 2, 29, 1, tzinfo=ZoneInfo("Europe/Berlin")),
            datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
            datetime.datetime(2024, 2, 29, fold=1),
        ],
        [],
        st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones()),
    ),
    Kind(
        "Date",
        peewee.DateField,
        [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), datetime.date(2024, 2, 29)],
        ["2024-02-29", "2024-02-29 12:30:00", "x", 5, datetime.datetime(2024, 2, 29, 12), ""],
        [],
        st.dates(),
    ),
    Kind(
        "Time",
        peewee.TimeField,
        [
            datetime.time(0),
            datetime.time(23, 59, 59, 999_999),
            datetime.time(12, 30, tzinfo=UTC),
            datetime.time(12, 30, 0, 1, tzinfo=EAST),
        ],
        [
            "12:30",
            "12:30:00.5",
            "x",
            5,
            datetime.timedelta(hours=1, seconds=1),
            datetime.datetime(2024, 2, 29, 12),
            "",
        ],
        [],
        st.times(),
    ),
    Kind(
        "Timestamp",
        peewee.TimestampField,
        [datetime.datetime(1970, 1, 2), datetime.datetime(2024, 2, 29, 12, 30)],
        [
            0,
            5,
            -5,
            1.6,
            "2024-02-29",
            datetime.date(2024, 2, 29),
            datetime.datetime(2024, 2, 29, 12, 30, 0, 600_000),
            datetime.datetime(2024, 2, 29, tzinfo=EAST),
            10**15,
        ],
        [],
        st.datetimes(datetime.datetime(1980, 1, 1), datetime.datetime(2100, 1, 1)),
    ),
    Kind(
        "TimestampMicro",
        lambda **o: peewee.TimestampField(resolution=6, utc=True, **o),
        [datetime.datetime(2024, 2, 29, 12, 30, 0, 500_000), datetime.datetime(1970, 1, 1)],
        [5, datetime.datetime(2024, 2, 29, 12, 30, 0, 123_457)],
        [],
        st.datetimes(datetime.datetime(1980, 1, 1), datetime.datetime(2100, 1, 1)),
    ),
    Kind(
        "TimestampMilli",
        lambda **o: peewee.TimestampField(resolution=3, **o),
        [datetime.datetime(2024, 2, 29, 12, 30, 0, 500_000)],
        [5, datetime.datetime(2024, 2, 29, 12, 30, 0, 123_456)],
    ),
    Kind("IP", peewee.IPField, ["0.0.0.0", "255.255.255.255", "10.1.2.3"], ["127.1", "0x7f.1"]),
    Kind(
        "JSON",
        peewee.JSONField,
        JSONS,
        [(1, 2), {"t": (1,)}],
        [
            NAN,
            {"a": float("inf")},
            {1: 2},
            {None: 1},
            [2**63],
            "\ud800",
            {"\ud800": 1},
            {"x": {1, 2}},
            [datetime.date(2024, 2, 29)],
            _deep(300),
            _deep(100_000),
            _circle(),
        ],
        JSON.filter(lambda value: value is not None),
        False,
    ),
    Kind(
        "OwnJSON",
        lambda **o: peewee.JSONField(dumps=sorted_dumps, **o),
        [{"b": 1, "a": "é"}, [1], {"raw": 1}],
        [{"when": datetime.date(2024, 2, 29)}, {2: 1}],
        [],
        JSON.filter(lambda value: value is not None),
        False,
    ),
    Kind(
        "Enum", lambda **o: EnumField(Color, **o), list(Color), ["red"], [], st.sampled_from(Color)
    ),
    Kind(
        "IntEnum", lambda **o: IntEnumField(Size, **o), list(Size), [1], [], st.sampled_from(Size)
    ),
    Kind("Mood", MoodField, [], list(Mood), [], st.sampled_from(Mood)),
    Kind("Pickle", PickleField, [{"a": (1, {2})}, [], 0, ""], [], [], JSON, False),
    Kind("Compressed", CompressedField, BYTES, ["text"], [], st.binary(max_size=30), False),
    Kind("List", ListField, [[""], ["a", "b"]], [["Infinity"]], [["\ud800"]], as_key=False),
    Kind("Sealed", SealedField, ["", "abc"], [], ["\ud800"], TEXT, False),
    Kind("Lower", LowerField, ["abc"], ["ABC"]),
    Kind(
        "Any",
        peewee.AnyField,
        ["", "Infinity", "-Infinity", 0, 2**63 - 1, 1.5, b"\0", *INFINITE],
        [
            "5",
            -0.0,
            True,
            Decimal("1.50"),
            datetime.datetime(2024, 1, 1, tzinfo=UTC),
            Mood.GOOD,
            Size.LARGE,
        ],
        [NAN],
        as_key=False,
    ),
    Kind(
        "Moment",
        MomentField,
        ["", "5", 0, 1.5, -0.0, b"\0", *INFINITE],
        [datetime.date(2024, 1, 1), datetime.time(12, 30), datetime.datetime(2024, 1, 1)],
        [NAN],
        as_key=False,
    ),
]
"""All of them."""

STORED = [
    "NULL", "0", "1", "2", "-1", "9007199254740993", "9223372036854775807", "1.5", "-0.0", "1e999",
    "-1e999", "1e20", "0.30000000000000004", "''", "'text'", "'12'", "'1.50'", "'Infinity'",
    "'2024-02-29'", "'2024-02-29T12:30:00'", "'2024-02-29 12:30:00.1'", "'12:30:00.50'", "'null'",
    "'{}'", "'{\"a\": 1}'", "'{\"a\":\"\\u00e9é\"}'", "'[1,NaN]'", "'\"\\ud800\"'", "'[1e400]'",
    "x''", "x'00ff'", "x'000102030405060708090a0b0c0d0e0f'", "'00000000000000000000000000ABCDEF'",
    "char(0)", "cast(x'31' as text)",
]  # fmt: skip
"""What an expression can put into a column, whatever its type."""
