"""Send, receive, settle: one sync."""
