"""Floor 5: the `asyncguard` command."""
