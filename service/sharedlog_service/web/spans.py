"""A span for each request, by OpenTelemetry, for who has its API installed: sharedlog[telemetry].

Which spans are kept, and where they go, is decided by whoever sets OpenTelemetry up around this
program; without that, and without the API, none are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from starlette.datastructures import Headers
from starlette.types import Scope

Tell = Callable[[dict[str, object]], None]
"""Takes what there is to tell of a request (see `recording`), when it is over."""

Spans = Callable[[Scope], AbstractContextManager[Tell]]

FAULTS = ("INTERNAL", "UNAVAILABLE")


@contextmanager
def no_span(scope: Scope) -> Iterator[Tell]:
    yield lambda told: None


def spans() -> Spans:
    """Return what puts a span around a request, as part of the caller's trace if it sent one."""
    try:
        from opentelemetry import propagate, trace
    except ModuleNotFoundError:
        return no_span
    tracer = trace.get_tracer("sharedlog")

    @contextmanager
    def span(scope: Scope) -> Iterator[Tell]:
        with tracer.start_as_current_span(
            "request",
            context=propagate.extract(Headers(scope=scope)),
            kind=trace.SpanKind.SERVER,
            # What an exception says may quote somebody's data.
            record_exception=False,
            set_status_on_exception=False,
        ) as found:

            def tell(told: dict[str, object]) -> None:
                found.update_name(str(told["operation"] or told["path"] or told["kind"]))
                for name, value in told.items():
                    if isinstance(value, str | int | float):
                        found.set_attribute(f"sharedlog.{name}", value)
                if told["code"] in FAULTS:
                    found.set_status(trace.StatusCode.ERROR)

            yield tell

    return span
