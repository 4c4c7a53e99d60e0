"""SQLite and PostgreSQL, as sessions with the few words that differ."""
