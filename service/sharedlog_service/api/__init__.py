"""The contract: what GraphQL shows of the store."""
