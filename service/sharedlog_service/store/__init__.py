"""The logs: appending, reading, compacting; who is told of news."""
