"""Keys are UUIDs in the order of the numbers, and where that is asked for the same everywhere."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from sharedlog import MigrationRefused, uuid7
from sharedlog.keys.making import NUMBER_LIMIT, DerivedKeys, OrderedKeys

NOW = 1_800_000_000_000


def ordered(seed: int = 1) -> OrderedKeys:
    return OrderedKeys(lambda: NOW, random.Random(seed).randbytes)


def test_ordered_keys_are_uuids_of_version_7_in_the_order_of_the_numbers() -> None:
    numbers = [-5, 0, 1, *range(10, 20_000)]

    made = list(ordered().make("t", numbers, len(numbers)))
    keys = [key for _, key in made]

    assert [number for number, _ in made] == numbers
    assert keys == sorted(set(keys))
    assert {UUID(key).version for key in keys} == {7}
    assert {UUID(key).variant for key in keys} == {UUID(int=0x80 << 56).variant}


def test_ordered_keys_come_before_those_that_are_made_later() -> None:
    """Also a table of many rows does not reach into the future: it begins in the past."""
    *_, (_, last) = ordered().make("t", range(10_000), 10_000)

    assert last < uuid7(lambda: NOW).hex
    assert int(last[:12], 16) == NOW - 1


def test_ordered_keys_differ_each_time() -> None:
    first = dict(ordered(1).make("t", range(100), 100))
    second = dict(ordered(2).make("t", range(100), 100))

    assert not set(first.values()) & set(second.values())


def test_derived_keys_depend_on_name_table_and_number_only() -> None:
    def keys(namespace: str, table: str) -> list[str]:
        return [key for _, key in DerivedKeys(namespace).make(table, range(50), 50)]

    assert keys("shop", "user") == keys("shop", "user")
    every = [*keys("shop", "user"), *keys("shop", "message"), *keys("other", "user")]
    assert len(set(every)) == len(every)


def test_derived_keys_are_in_order_and_before_all_made_by_the_clock() -> None:
    numbers = [0, 1, 2, 255, 256, 10**6, NUMBER_LIMIT - 1]

    keys = [key for _, key in DerivedKeys("shop").make("t", numbers, len(numbers))]

    assert keys == sorted(set(keys))
    assert {UUID(key).version for key in keys} == {8}
    assert keys[-1] < uuid7(lambda: NOW).hex


def test_derived_keys_stay_what_they_are() -> None:
    """Another version of this library must give the same keys on another copy."""
    [(_, key)] = DerivedKeys("shop").make("user", [42], 1)

    assert key == "00000000002a83898c4f4565ba60d26e"


@pytest.mark.parametrize("number", [-1, NUMBER_LIMIT])
def test_numbers_that_keys_cannot_be_derived_from_are_refused(number: int) -> None:
    with pytest.raises(MigrationRefused, match="user has the number"):
        list(DerivedKeys("shop").make("user", [number], 1))
