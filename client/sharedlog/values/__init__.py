"""What stands in columns, as JSON and back."""
