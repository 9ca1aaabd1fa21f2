"""Parameter space, objectives, brackets and toy fields. Knows torch and nothing above it."""
