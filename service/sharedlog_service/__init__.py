"""The GraphQL service that keeps one append-only shared log per user."""
