"""Looking after a replica: is it equal, what waits, what can go."""
