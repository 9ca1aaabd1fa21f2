"""Parameter space, objectives, Lie brackets and toy vector fields. Knows torch and nothing above it."""
