"""Floor 3: one file per strategy: its options, the strategy, its drivers if it has its own, the decorator."""
