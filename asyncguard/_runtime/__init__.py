"""Floor 1: how to wait, and what the machine we run on says. The only place that knows asyncio, trio and threads."""
