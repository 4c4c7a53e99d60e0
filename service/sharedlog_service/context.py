"""What a resolver is given."""

from __future__ import annotations

from dataclasses import dataclass

from strawberry import Info

from sharedlog_service.auth import Access
from sharedlog_service.pokes import Pokes
from sharedlog_service.records import Record
from sharedlog_service.writer import Runner


@dataclass(frozen=True, slots=True)
class Context:
    """What a resolver needs: where the store's work runs, who asks, what is noted of it, and whom
    to tell that there is something new."""

    run: Runner
    access: Access
    record: Record
    pokes: Pokes


Asker = Info[Context, None]
