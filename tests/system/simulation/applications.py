"""The applications that worlds run: the notebook, which was thought out, and those that are drawn."""

from __future__ import annotations

from functools import partial
from random import Random

from . import drawn, notebook
from .drawn_user import DrawnUser
from .notebook_user import NotebookUser
from .shapes import Application

NOTEBOOK = Application(
    "notebook", notebook.SHAPES, notebook.define, NotebookUser, notebook.STRANGERS
)


def any_application(chance: Random) -> Application:
    """The notebook now and then, else one of its own for each world."""
    if chance.random() < 0.3:
        return NOTEBOOK
    shapes = drawn.draw_shapes(chance)
    return Application(
        f"drawn of {', '.join(shapes)}",
        shapes,
        partial(drawn.define, shapes),
        DrawnUser,
        drawn.strangers(shapes, chance),
    )
