"""The service's command line."""
