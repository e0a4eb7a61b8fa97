"""Which group each asset is in."""
