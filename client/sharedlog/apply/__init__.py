"""Merged rows into the application's tables: which can stand there, and how they get there."""
