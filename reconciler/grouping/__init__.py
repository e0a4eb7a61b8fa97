"""Grouping strategies: which group an asset belongs to."""
