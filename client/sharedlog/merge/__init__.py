"""What a row is, from the set of its changes: pure, in any order."""
