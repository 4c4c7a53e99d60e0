"""Strawberry's schema, as this service wants it to behave. What is in it, `schema` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strawberry
from strawberry.types.graphql import OperationType

from sharedlog_service.api.faults import explain
from sharedlog_service.api.known import KnownDocuments, known_documents
from sharedlog_service.api.records import Record

ONE_ANSWER: Mapping[str, Any] = {
    "allowed_operation_types": (OperationType.QUERY, OperationType.MUTATION)
}
"""Subscriptions have many: Strawberry would try to answer one all the same, and fail."""


class ServiceSchema(strawberry.Schema):
    """The schema, with errors that have codes and tell nothing else, and the documents that are
    always answered."""

    def __init__(self, *, documents: KnownDocuments | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.documents = documents or known_documents()

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await super().execute(*args, **{**kwargs, **ONE_ANSWER})

    def execute_sync(self, *args: Any, **kwargs: Any) -> Any:
        return super().execute_sync(*args, **{**kwargs, **ONE_ANSWER})

    def process_errors(self, errors: list[Any], execution_context: Any = None) -> None:
        context = execution_context.context if execution_context else None
        running = bool(execution_context and execution_context.result)
        record = getattr(context, "record", None) or Record("")
        errors[:] = [explain(error, running=running, request_id=record.id) for error in errors]
        for error in errors:
            record.failed(error.extensions["code"])

    def _extend_introspection(self) -> None:
        """Leave `isOneOf` to graphql-core: Strawberry's own way fails for lists."""
