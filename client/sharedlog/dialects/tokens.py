"""SQLite's own statements, token by token. Knows no database."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<text>'(?:[^']|'')*')
    |(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[^\W\d][\w$]*)
    |(?P<sign><>|<=|>=|==|!=|<<|>>|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def upper(self) -> str:
        """A keyword or a sign as one compares it; nothing that is quoted is a keyword."""
        return self.text.upper() if self.kind in ("word", "sign") else ""

    @property
    def name(self) -> str | None:
        """What an identifier names, in lower case: SQLite does not tell case apart."""
        if self.kind == "word":
            return self.text.lower()
        if self.kind != "name":
            return None
        inner, closing = self.text[1:-1], self.text[-1]
        return inner.replace(closing * 2, closing).lower()


def tokens(sql: str) -> list[Token]:
    """The tokens that mean something: no space, no comments."""
    found = (Token(m.lastgroup or "", m.group(), m.start()) for m in _TOKEN.finditer(sql))
    return [token for token in found if token.kind != "space"]


def mentions(sql: str, names: Collection[str]) -> bool:
    """Whether a statement names one of these tables or columns, given in lower case."""
    return any(token.name in names for token in tokens(sql))


def items(every: Sequence[Token]) -> Iterator[list[Token]]:
    """What stands between the commas of the outermost parentheses."""
    item: list[Token] = []
    depth = 0
    for token in every:
        depth -= token.text == ")"
        if depth == 1 and token.text == ",":
            yield item
            item = []
        elif depth >= 1:
            item.append(token)
        depth += token.text == "("
        if depth == 0 and token.text == ")":
            yield item
            return


def conflict_words(sql: str) -> list[str]:
    """What a CREATE TABLE says to do ON CONFLICT, in capitals."""
    words = [token.upper for token in tokens(sql)]
    triples = zip(words, words[1:], words[2:], strict=False)
    return [word for *before, word in triples if before == ["ON", "CONFLICT"]]


def index_said(sql: str) -> tuple[list[str], str | None]:
    """What a CREATE INDEX is over, and the rows that it is about; None if these are all."""
    every = tokens(sql)
    opening = next(n for n, token in enumerate(every) if token.upper == "ON") + 2
    parts = list(items(every[opening:]))
    closing = every.index(parts[-1][-1]) + 1
    said = [_between(sql, _unordered(part)) for part in parts]
    where = every[closing + 2 :]  # behind the bracket and the word
    return said, _between(sql, where) if where else None


def _unordered(part: Sequence[Token]) -> Sequence[Token]:
    return part[:-1] if part[-1].upper in ("ASC", "DESC") else part


def _between(sql: str, some: Sequence[Token]) -> str:
    return sql[some[0].start : some[-1].end]
