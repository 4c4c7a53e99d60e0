"""Digests: equal for equal rows only, whatever the order; and which rows differ."""

from __future__ import annotations

import hashlib
import json

import peewee
import pytest
from hypothesis import given, strategies as st

from sharedlog import Digest, MemorySharedLog, SyncModel
from sharedlog.tables.digest import _Sum

from .conftest import OpenDevice
from .devices import Device


class Supplier(SyncModel):
    code = peewee.CharField(primary_key=True)


class Product(SyncModel):
    code = peewee.CharField(primary_key=True)
    price = peewee.FloatField(null=True)
    data = peewee.JSONField(null=True)
    supplier = peewee.ForeignKeyField(Supplier, null=True)


MODELS = (Supplier, Product)


@pytest.fixture
def pair(open_device: OpenDevice) -> tuple[Device, Device]:
    """Two devices with the same rows."""
    log = MemorySharedLog()
    one, two = open_device(MODELS, shared_log=log), open_device(MODELS, shared_log=log)
    with one:
        Supplier.create(code="acme")
        for number in range(1_200):
            Product.create(code=f"{number:04}", price=number / 4, supplier="acme")
        one.sync.sync()
    with two:
        two.sync.sync()
    one.sync.sync()
    return one, two


def differences(one: Device, two: Device, *, rows: bool = True) -> list[tuple[str, object, str]]:
    there = Digest.from_json(json.loads(json.dumps(two.sync.digest(rows=rows).to_json())))
    here = one.sync.digest(rows=rows)
    return [(d.collection, d.pk, d.kind) for d in here.compare(there)]


def test_equal_devices_have_equal_digests(pair: tuple[Device, Device]) -> None:
    one, two = pair
    here, there = one.sync.digest(), two.sync.digest()
    assert here.collections == there.collections
    assert (here.collections["product"].rows, here.collections["supplier"].rows) == (1_200, 1)
    assert here.compare(there) == []
    assert (here.checkpoint, here.pending) == (there.checkpoint, 0)
    assert here.device != there.device
    assert len(json.dumps(here.to_json())) < 1_000


def test_a_value_a_missing_and_an_extra_row_are_told(pair: tuple[Device, Device]) -> None:
    one, two = pair
    two.database.execute_sql("UPDATE product SET price = 1.5 WHERE code = '0500'")
    two.database.execute_sql("DELETE FROM product WHERE code = '0600'")
    one.database.execute_sql("DELETE FROM product WHERE code = '0700'")
    assert differences(one, two) == [
        ("product", "0500", "differs"),
        ("product", "0600", "extra"),
        ("product", "0700", "missing"),
    ]
    assert differences(one, two, rows=False) == [("product", None, "differs")]


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("price = NULL", "price = 0"),
        ("data = '1'", "data = 'true'"),
        ("data = NULL", "data = 'null'"),
    ],
)
def test_other_values_that_are_nearly_the_same(
    pair: tuple[Device, Device], here: str, there: str
) -> None:
    one, two = pair
    one.database.execute_sql(f"UPDATE product SET {here} WHERE code = '0005'")
    two.database.execute_sql(f"UPDATE product SET {there} WHERE code = '0005'")
    assert differences(one, two) == [("product", "0005", "differs")]
    two.database.execute_sql(f"UPDATE product SET {here} WHERE code = '0005'")
    assert differences(one, two) == []


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("[1]", "[1.0]"),
        ('{"a":1,"b":[{"c":1,"d":2}]}', '{"b":[{"d":2,"c":1}],"a":1}'),
        ("1e+16", "10000000000000000"),
        ("-0.0", "0"),
    ],
)
def test_json_that_means_the_same_is_the_same(
    pair: tuple[Device, Device], here: str, there: str
) -> None:
    """PostgreSQL keeps what JSON means, and writes it in its own way."""
    one, two = pair
    for device, text in ((one, here), (two, there)):
        device.database.execute_sql("UPDATE product SET data = ? WHERE code = '0005'", (text,))
    assert differences(one, two) == []


def test_exchanged_values_are_noticed(pair: tuple[Device, Device]) -> None:
    """The same values in other rows, or in other fields, are not the same."""
    one, two = pair
    two.database.execute_sql(
        "UPDATE product SET price = CASE code WHEN '0001' THEN 0.5 ELSE 0.25 END "
        "WHERE code IN ('0001', '0002')"
    )
    assert [pk for _, pk, _ in differences(one, two)] == ["0001", "0002"]


def test_a_parked_row_is_told_from_one_that_stands(pair: tuple[Device, Device]) -> None:
    one, two = pair
    with one:
        Product.create(code="new", supplier="acme")
        one.sync.sync()
    two.database.execute_sql("PRAGMA foreign_keys = 0")
    two.database.execute_sql("DELETE FROM supplier")
    two.database.execute_sql("PRAGMA foreign_keys = 1")
    two.sync.sync()
    assert two.sync.status().parked == 1
    assert two.sync.digest().collections["product"].parked == 1
    assert differences(one, two) == [
        ("product", "new", "parked there"),
        ("supplier", "acme", "extra"),
    ]
    assert ("product", "new", "parked here") in differences(two, one)


@pytest.mark.filterwarnings("ignore:Product.supplier refers to Supplier, which is not given")
def test_rows_of_a_table_that_one_side_does_not_know(open_device: OpenDevice) -> None:
    log = MemorySharedLog()
    one, two = open_device(MODELS, shared_log=log), open_device(MODELS[1:], shared_log=log)
    with one:
        Supplier.create(code="acme")
        one.sync.sync()
    two.sync.sync()
    assert two.sync.digest().collections["supplier"].parked == 1
    assert differences(one, two) == [("supplier", "acme", "parked there")]


def test_a_digest_needs_no_service_and_writes_nothing(open_device: OpenDevice) -> None:
    device = open_device(MODELS)
    with device:
        Supplier.create(code="acme")
    device.sync.digest()  # the first of all calls looks at the tables
    before = device.database.connection().total_changes
    digest = device.sync.digest(rows=True)
    assert device.database.connection().total_changes == before
    assert digest.checkpoint is None
    assert digest.pending == 1
    assert list(digest.collections["supplier"].hashes or ()) == ['"acme"']


rows = st.dictionaries(
    st.text(max_size=3),
    st.dictionaries(
        st.sampled_from("abc"), st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text())
    ),
    max_size=6,
)


@given(one=rows, two=rows, chance=st.randoms())
def test_the_sum_is_equal_for_the_same_rows_only_in_any_order(one, two, chance) -> None:  # type: ignore[no-untyped-def]
    def total(rows: dict[str, dict[str, object]], names: list[str]) -> str:
        found = _Sum(rows=False)
        for name in names:
            found.add(json.dumps(name), rows[name])
        return str(found)

    shuffled = list(one)
    chance.shuffle(shuffled)
    assert total(one, shuffled) == total(one, list(one))
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (total(one, list(one)) == total(two, list(two))) == same


def test_the_format_of_a_digest_is_fixed() -> None:
    """Devices with other versions of the library, and those in other languages, get the same."""
    found = _Sum(rows=True)
    found.add('"n1"', {"title": "é", "done": True, "at": None})
    found.add('["a",2]', {})
    texts = ['["n1",{"at":null,"done":true,"title":"é"}]', '[["a",2],{}]']
    hashes = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    assert found.hashes == dict(zip(['"n1"', '["a",2]'], hashes, strict=True))
    total = sum(int(text, 16) for text in hashes) % 2**128
    assert str(found) == f"{total:032x}"
