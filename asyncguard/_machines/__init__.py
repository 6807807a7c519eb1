"""Floor 0: what to do. Pure decisions: no event loop, no sleeping, no I/O; time comes in from outside."""
