"""From any failure to an answer: a code and a sentence if it is ours, a mask if it is not."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.schema.exceptions import CannotGetOperationTypeError

from sharedlog_service.errors import Code, Refused

logger = logging.getLogger("sharedlog.service")


def explain(error: GraphQLError, *, running: bool, request_id: str) -> GraphQLError:
    """Give an error its code; whatever is unexpected is logged, once, and masked.

    `running`: whether the document had passed validation. Safe to repeat on its own result.
    """
    if (error.extensions or {}).get("code"):
        return error
    cause = error.original_error
    if isinstance(cause, GraphQLError):
        # graphql-core locates an error of its own by wrapping it.
        cause = cause.original_error
    if isinstance(cause, Refused):
        return _coded(error, str(cause), cause.extensions)
    if isinstance(cause, CannotGetOperationTypeError):
        # By HTTP this is an answer of its own; on a socket it comes here.
        return _coded(error, cause.as_http_error_reason(), {"code": Code.BAD_REQUEST.name})
    if isinstance(error, GraphQLSyntaxError):
        return _coded(error, error.message, {"code": Code.GRAPHQL_PARSE_FAILED.name})
    if cause is None and not running:
        return _coded(error, error.message, {"code": Code.GRAPHQL_VALIDATION_FAILED.name})
    if cause is None and error.path is None:
        return _coded(error, error.message, {"code": Code.INVALID_ARGUMENT.name})
    log_fault(cause or error, request_id)
    internal = internal_error(request_id)
    return _coded(error, str(internal), internal.extensions)


def refused_answer(refused: Refused) -> dict[str, Any]:
    """Return what a GraphQL answer looks like when nothing was executed."""
    return {"data": None, "errors": [{"message": str(refused), "extensions": refused.extensions}]}


def internal_error(request_id: str) -> Refused:
    return Refused(Code.INTERNAL, requestId=request_id)


def log_fault(error: BaseException, request_id: str) -> None:
    """Log where it failed, but not what about: a message may quote somebody's data."""
    told = {"request": request_id, "error": type(error).__name__, "at": where(error)}
    logger.error("request %s failed: %s at %s", *told.values(), extra={"told": told})


def where(error: BaseException) -> str:
    """Return the places in the code that an error went through, where it was raised first."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))


def _coded(error: GraphQLError, message: str, extensions: dict[str, object]) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )
