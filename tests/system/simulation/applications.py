"""The applications that worlds run: the notebook, and those that are drawn by lot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from random import Random

from . import drawn, notebook
from .drawn_user import DrawnUser
from .notebook_user import NotebookUser
from .shapes import Application, Shape

NOTEBOOK = Application(
    "notebook", notebook.SHAPES, notebook.define, NotebookUser, notebook.STRANGERS
)


def any_application(chance: Random) -> Application:
    """The notebook now and then, else one of its own for each world."""
    if chance.random() < 0.3:
        return NOTEBOOK
    shapes = drawn.draw_shapes(chance)
    return _of(shapes, drawn.strangers(shapes, chance))


def _of(shapes: Mapping[str, Shape], strangers: Sequence[str]) -> Application:
    def older(chance: Random) -> Application:
        return _of(drawn.older(shapes, chance), strangers)

    return Application(
        f"drawn of {', '.join(shapes)}",
        shapes,
        partial(drawn.define, shapes),
        DrawnUser,
        strangers,
        older,
    )
