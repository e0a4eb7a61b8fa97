"""Migration from the 0.4 system."""
