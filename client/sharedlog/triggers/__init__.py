"""The recorder that lives in the database: triggers note, the harvest reads."""
