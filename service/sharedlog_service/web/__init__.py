"""HTTP and WebSocket around the contract: guards, logs, metrics, the app."""
