"""Names and values of the past, read as those of today."""
