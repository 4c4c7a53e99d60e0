"""The bounds that JSON from anywhere is held to, before it is parsed."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from sharedlog_service.errors import Refused
from sharedlog_service.web.request import VALUES_MAX, check_values, has_more_values


@pytest.mark.parametrize("of", ["1,", '"a",', '"', ",", '\\",'])
def test_values_are_counted_without_copies_of_the_body(of: str) -> None:
    body = b'["' + b"," * VALUES_MAX + b'",' + of.encode() * 2**21
    tracemalloc.start()
    with suppress(Refused):
        check_values(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < len(body)


@given(
    st.recursive(
        st.integers(0, 9) | st.text('a,"\\[', max_size=8),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(',"\\', max_size=3), inner),
    ),
    st.integers(1, 5),
)
def test_values_are_counted_wherever_a_portion_ends(value: Any, portion: int) -> None:
    def inside(found: Any) -> int:
        """How many commas the JSON has that separate something."""
        inner = list(found.values()) if isinstance(found, dict) else found
        if not isinstance(inner, list) or not inner:
            return 0
        return len(inner) - 1 + sum(map(inside, inner))

    body, commas = orjson.dumps(value), inside(value)
    texts = body.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
    assert has_more_values(body, commas - 1, portion)
    assert has_more_values(body, commas, portion) == (
        body.count(b",") > commas and texts > 4 * commas
    )
