"""A merge rule of the application's own. Pure, if its function is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..changes import Wire
from ..raw import RAW, is_escape
from .rules import MergeRule, Writes, value_in, without_replaced

FAILED = "Let its function take any list of values that the field may have."
"""What is said to an application whose rule failed."""


def _same(value: Any) -> Any:
    return value


class Custom(MergeRule):
    """An application's own rule.

    Args:
        name: What travels. The function of this name must be the same on all devices.
        function: Gets every value that was written since the row's latest deletion, the latest
            last, and returns the field's value. It must be pure, and take any such list. (All
            these writes are kept; so it is not for fields that are written day by day.)
    """

    def __init__(
        self,
        name: str,
        function: Callable[[list[Any]], Any],
        *,
        decode: Callable[[Wire], Any] = _same,
        encode: Callable[[Any], Wire] = _same,
    ) -> None:
        self.name = name
        self.function = function
        self._decode = decode
        self._encode = encode

    def fits(self, value: Wire, *, plain: bool) -> bool:
        try:
            self._decode(value)
        except Exception:
            return False
        return True

    def keep(self, writes: Writes) -> Writes:
        return without_replaced(writes)

    def value(self, writes: Writes) -> Wire:
        try:
            values = [self._decode(value_in(operand)) for _, operand in self.keep(writes)]
            return self._encode(self.function(values))
        except Exception as error:  # a value that no column takes, so that the row is parked
            return {RAW: {f"the rule {self.name!r} failed: {error!a}": None}}


def failure(value: Wire) -> str | None:
    """Why a rule of an application's own has no value, if it gave this in its place."""
    given = value[RAW] if is_escape(value) else None
    if type(given) is not dict or [*given.values()] != [None]:
        return None
    (reason,) = given
    return str(reason)
