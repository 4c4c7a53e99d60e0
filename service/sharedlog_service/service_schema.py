"""Strawberry's schema, as this service wants it to behave. What is in it, `schema` says."""

from __future__ import annotations

from typing import Any

import strawberry

from sharedlog_service.faults import explain
from sharedlog_service.known import KnownDocuments, known_documents


class ServiceSchema(strawberry.Schema):
    """The schema, with errors that have codes and tell nothing else, and the documents that are
    always answered."""

    def __init__(self, *, documents: KnownDocuments | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.documents = documents or known_documents()

    def process_errors(self, errors: list[Any], execution_context: Any = None) -> None:
        context = execution_context.context if execution_context else None
        running = bool(execution_context and execution_context.result)
        request_id = getattr(context, "request_id", "")
        errors[:] = [explain(error, running=running, request_id=request_id) for error in errors]

    def _extend_introspection(self) -> None:
        """Leave `isOneOf` to graphql-core: Strawberry's own way fails for lists."""
