"""The demonstration: two devices, one service, real data, conflicts, and a proof."""

from .story import run

__all__ = ["run"]
