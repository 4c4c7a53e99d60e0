"""Every way the service says no: one list of codes, one exception.

A code is for machines and never changes its meaning; the sentence beside it is for people and is
the default message. Errors that are not in this list are answered as `INTERNAL`, masked.
"""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """What `errors[].extensions.code` and a rejected entry's `code` can say."""

    # Who asks.
    UNAUTHENTICATED = "A valid bearer token is needed: Authorization: Bearer slog_..."
    FORBIDDEN = "This token belongs to another user than the userId argument names."
    SCOPE_MISSING = "This token may not do that: it lacks a scope."
    DEVICE_FORBIDDEN = "This token is for another device."
    USER_UNKNOWN = "There is no such user yet; createDeviceId makes it (service without tokens)."
    DEVICE_UNKNOWN = "No device with this id is registered in this log; call createDeviceId."
    DEVICE_REVOKED = "This device was revoked; it may neither read nor write any more."

    # Where in the log.
    CURSOR_INVALID = "This is not a cursor of this service."
    CURSOR_AHEAD = (
        "The cursor lies beyond the end of the log: the service was restored from a backup."
    )
    EPOCH_CHANGED = (
        "The cursor belongs to an earlier life of this log: read it again from its beginning."
    )
    HORIZON_PASSED = (
        "The device has missed deletions that the log has forgotten since: read it again from its "
        "beginning, and delete what is not in it."
    )
    LINEAGE_CHANGED = (
        "The device has written, or the log has lost, what this request does not know of: an "
        "answer got lost, or one of the databases is a copy. Look at getOwnEntries."
    )

    # How much.
    RATE_LIMITED = "Too much at once: ask again later. Nothing was done."
    QUOTA_EXCEEDED = "The log is full: nothing of this batch was written. Reading goes on."

    ANSWERS_WAITING = (
        "Too many answers wait to be taken: this one is not sent, though what was asked for may be "
        "done."
    )

    # What is asked.
    INVALID_ARGUMENT = "An argument has a value that is not allowed here."
    BATCH_TOO_LARGE = "The batch is over the limits; send it in smaller parts."

    # One entry of a batch; the others are not affected.
    ENTRY_INVALID = "The entry is not well formed."
    ENTRY_TOO_LARGE = "The entry's data is over the limit."
    CLOCK_AHEAD = "The entry is dated more than five minutes ahead of the service's time."
    ENTRY_TOO_OLD = "The entry is from before what the log remembers; date it anew."
    DEVICE_CLONED = "Another entry of this device already has this createdOn: a copied database?"

    # The request as such, before or instead of an operation.
    BAD_REQUEST = "The body is not a GraphQL request in JSON."
    BODY_TOO_LARGE = "The request body is over the limit."
    UNSUPPORTED_MEDIA_TYPE = "Send application/json, in UTF-8, as it is or in gzip."
    METHOD_NOT_ALLOWED = "GraphQL requests are sent by POST."
    HOST_NOT_ALLOWED = "Without tokens the service answers only to loopback host names."
    GRAPHQL_PARSE_FAILED = "The document is not valid GraphQL."
    GRAPHQL_VALIDATION_FAILED = "The document does not fit the schema or is over a limit."

    DOCUMENT_NOT_ALLOWED = (
        "This service answers only the documents of the sharedlog library. To ask others: a token "
        "with the scope explore, or sharedlog serve --explore"
    )
    PERSISTED_QUERY_NOT_FOUND = "No known document has this hash: send the document itself."

    TOO_MANY_SOCKETS = "Too many sockets of this user are open; close one, and try again later."

    # The service's own trouble.
    UNAVAILABLE = "The service cannot do this now; nothing was written. Try again."
    INTERNAL = "The service failed; its log names this request by its id."


class Refused(Exception):
    """An expected failure with a code; `details` travel in the error's `extensions`."""

    def __init__(self, code: Code, message: str | None = None, **details: object) -> None:
        super().__init__(message or code.value)
        self.code = code
        self.details = details

    @property
    def extensions(self) -> dict[str, object]:
        return {"code": self.code.name, **self.details}


class ConfigurationError(Exception):
    """The service was set up in a way it cannot or must not run."""
