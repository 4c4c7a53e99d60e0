"""What may be left of the files at any moment, if the power went away just then.

`moments` goes through what a disk recorded and yields, after each call, what is certain and what
is pending; `images` makes from that what a machine may find when it starts again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.system.disk.disk import Call

SECTOR = 512

Files = Mapping[str, bytes]
"""The content of a folder's files, by name."""


class Write(NamedTuple):
    """A write that is not certain yet; `data` is None for a new size."""

    inode: int
    offset: int
    data: bytes | None


class Link(NamedTuple):
    """A change of the folder that is not certain yet; `inode` is None for a deletion."""

    name: str
    inode: int | None


@dataclass
class Moment:
    """The files just after a call: certain content by inode, certain names, and what is pending,
    in order."""

    number: int = 0
    content: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


def moments(calls: Iterable[Call], files: Files | None = None) -> Iterator[Moment]:
    """The files after each call; at first they are as given. One object, which changes."""
    now = Moment()
    for name, content in (files or {}).items():
        inode = now.names[name] = len(now.content)
        now.content[inode] = content
    live = dict(now.names)
    for number, call in enumerate(calls, 1):
        now.number = number
        if call.what == "create":
            inode = live[call.file] = len(now.content)
            now.content[inode] = b""
            now.links.append(Link(call.file, inode))
        elif call.what == "delete":
            del live[call.file]
            now.links.append(Link(call.file, None))
        elif call.what == "write":
            now.writes.append(Write(live[call.file], call.offset, call.data))
        elif call.what == "truncate":
            now.writes.append(Write(live[call.file], call.offset, None))
        elif call.what == "sync":
            _settle(now, live[call.file])
        else:
            _link(now.names, now.links)
            now.links = []
        yield now


def images(moment: Moment, chance: random.Random, draws: int = 1) -> Iterator[tuple[str, Files]]:
    """What may be found after a power cut at a moment, with the kind of it. So many `draws` are
    made of what is left to chance."""
    yield "kept", _image(moment, moment.writes, moment.links)
    if not moment.writes and not moment.links:
        return
    yield "dropped", _image(moment, (), ())
    for kind in ("some", "torn", "noise") * draws:
        # Half of it, or nearly all.
        share = chance.choice((0.5, 0.9))
        links = [link for link in moment.links if chance.random() < share]
        writes = [kept for write in moment.writes for kept in _left(write, kind, share, chance)]
        yield kind, _image(moment, writes, links)


def _left(write: Write, kind: str, share: float, chance: random.Random) -> Iterator[Write]:
    """What is left of one pending write: all of it, nothing, or something of each sector."""
    if kind == "some" or write.data is None or chance.random() < 0.5:
        if chance.random() < share:
            yield write
        return
    for offset, sector in _sectors(write.offset, write.data):
        if chance.random() < share:
            yield Write(write.inode, offset, sector)
        elif kind == "noise":
            yield Write(write.inode, offset, chance.randbytes(len(sector)))


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    begin = 0
    while begin < len(data):
        end = begin + SECTOR - (offset + begin) % SECTOR
        yield offset + begin, data[begin:end]
        begin = end


def _image(moment: Moment, writes: Iterable[Write], links: Iterable[Link]) -> Files:
    names = dict(moment.names)
    _link(names, links)
    changed = _written(moment.content, writes)
    return {name: changed.get(inode, moment.content[inode]) for name, inode in names.items()}


def _settle(now: Moment, inode: int) -> None:
    """A sync: what was written to this file is certain."""
    writes = [write for write in now.writes if write.inode == inode]
    now.content |= _written(now.content, writes)
    now.writes = [write for write in now.writes if write.inode != inode]


def _written(content: Mapping[int, bytes], writes: Iterable[Write]) -> dict[int, bytes]:
    """The new content of the files that these writes change."""
    by_inode: dict[int, bytearray] = {}
    for inode, offset, data in writes:
        file = by_inode.get(inode)
        if file is None:
            file = by_inode[inode] = bytearray(content[inode])
        size = offset + len(data or b"")
        if len(file) < size:
            file.extend(bytes(size - len(file)))
        if data is None:
            del file[offset:]
        else:
            file[offset:size] = data
    return {inode: bytes(file) for inode, file in by_inode.items()}


def _link(names: dict[str, int], links: Iterable[Link]) -> None:
    for name, inode in links:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
