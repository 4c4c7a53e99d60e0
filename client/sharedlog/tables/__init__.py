"""The application's rows, and what is known of each."""
