"""What a resolver is given."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from strawberry import Info

from sharedlog_service.access.auth import Access
from sharedlog_service.api.records import Record
from sharedlog_service.store.pokes import Pokes
from sharedlog_service.store.writer import Runner

C = TypeVar("C", bound="Context")


@dataclass(frozen=True, slots=True)
class Context:
    """What a resolver needs: where the store's work runs, who asks, what is noted of it, and whom
    to tell that there is something new."""

    run: Runner
    access: Access
    record: Record
    pokes: Pokes

    def inside(self, kind: type[C], **more: Any) -> C:
        """Return a context of another program's, a subclass of this one, with what that adds."""
        own = {field.name: getattr(self, field.name) for field in fields(Context)}
        return kind(**own, **more)


Asker = Info[Context, None]
