"""The base class of tracked models, and what is tracked."""
