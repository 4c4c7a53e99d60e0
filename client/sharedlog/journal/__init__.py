"""The client log: sharedlog's own tables, beside the application's."""
