"""Ways to a shared log."""
