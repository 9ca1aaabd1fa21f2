"""Optimizers as maps, stages, and schedules run for real."""
