"""Losses, data sources, batches and models."""
